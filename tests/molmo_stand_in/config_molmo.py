"""The stand-in's configuration."""

from transformers import PreTrainedConfig


class MolmoConfig(PreTrainedConfig):
    model_type = "molmo"
    keys_to_ignore_at_inference = ("past_key_values",)

    def __init__(
        self,
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        patch_values=588,
        use_cache=True,
        use_position_ids=True,
        weight_tying=False,
        tie_word_embeddings=False,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.patch_values = patch_values
        self.use_cache = use_cache
        self.use_position_ids = use_position_ids
        self.weight_tying = weight_tying
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


MolmoConfig.register_for_auto_class()
