"""Tiny random checkpoints of each local family, made offline, in the form that transformers and vLLM load.

They know nothing: the answers of `qwen2_5_vl`, `llava` and `instructblip` are noise that ends, for smoke tests of
the whole path from image to leaderboard; the others are there to be trained. The same library versions give the
same bytes.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError, Unavailable
from model_adapters.tiny_instructblip import save_qformer_tokenizer
from model_adapters.tiny_recipes import BPE_SIZE, RECIPES, SENTENCES, Recipe

TINY_FAMILIES = ("qwen2_5_vl", "llava")  # the recipes that answer with noise

_BUILDER = 1  # raise it when the code below changes what it makes
_LIBRARIES = ("torch", "transformers", "tokenizers")  # whose versions decide bytes

_ATTENTION_GAIN = 1.5  # of queries and keys: attention picks, it does not average
_MARKS = frozenset("0123456789()[],.")
_ANSWERS = frozenset("0123456789") | {"yes", "no"}


def tiny_checkpoint(name: str, cache_dir: Path) -> Path:
    """The folder cache_dir/tiny/<name>-<recipe hash>, made on first use. name: one of RECIPES.

    It is built beside its place and renamed into it, so that a folder that is there is whole and
    several processes may ask at once. Raises ConfigError on an unknown name.
    """
    if name not in RECIPES:
        raise ConfigError(f"No tiny checkpoint {name!r}. There are: {', '.join(RECIPES)}.")
    recipe = RECIPES[name]
    folder = cache_dir / "tiny" / f"{name}-{_recipe_hash(recipe)}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        built = Path(scratch) / folder.name
        built.mkdir()
        _build(recipe.family, recipe, built)
        try:
            built.rename(folder)
        except OSError:  # another process was first; its bytes are the same
            if not folder.is_dir():
                raise
    return folder


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        raise Unavailable(f"Tiny checkpoints need {library}: pip install 'evalkit-vlm[local]'.") from None


def _recipe_hash(recipe: Recipe) -> str:
    content = {
        "recipe": asdict(recipe),
        "sentences": SENTENCES,
        "bpe_size": BPE_SIZE,
        "builder": _BUILDER,
        "libraries": [_version(library) for library in _LIBRARIES],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _build(family: str, recipe: Recipe, folder: Path) -> None:
    # imported by name, here and below, so that types are checked alike with and without the package
    import_module("transformers").utils.logging.disable_progress_bar()  # a second's work
    tokenizer = _tokenizer(recipe)
    tokenizer.save_pretrained(folder)
    if recipe.chat_template:
        (folder / "chat_template.jinja").write_text(recipe.chat_template, encoding="utf-8")
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in recipe.special}
    model = _model(family, recipe, ids, vocab_size=-(-len(tokenizer) // 64) * 64)
    if recipe.to_train:
        _place_patches(model, recipe)
    else:
        _spread_weights(model, recipe, tokenizer)
    model.save_pretrained(folder)
    if family == "llava":
        from model_adapters.export import restore_vision_tower_keys

        restore_vision_tower_keys(folder)
    if family == "instructblip":
        save_qformer_tokenizer(SENTENCES, folder)
    for name, content in recipe.files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _tokenizer(recipe: Recipe) -> Any:
    """A byte-level BPE of our own sentences with the family's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    bpe = Tokenizer(models.BPE())
    # digits one by one, as in both families
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=BPE_SIZE, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(SENTENCES, trainer)
    bpe.add_special_tokens(list(recipe.special))
    if recipe.bos:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{recipe.bos} $A", special_tokens=[(recipe.bos, bpe.token_to_id(recipe.bos))]
        )
    named = {"bos_token": recipe.bos, "eos_token": recipe.eos, "pad_token": recipe.pad}
    others = [token for token in recipe.special if token not in named.values()]
    return import_module("transformers").PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        additional_special_tokens=others,
        model_max_length=4096,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **{name: token for name, token in named.items() if token},
    )


def _fill_ids(value: Any, ids: Mapping[str, int]) -> Any:
    """Replace each "id:<token>" of a recipe by the token's id."""
    if isinstance(value, dict):
        return {key: _fill_ids(inner, ids) for key, inner in value.items()}
    if isinstance(value, str) and value.startswith("id:"):
        return ids[value.removeprefix("id:")]
    return value


def _model(family: str, recipe: Recipe, ids: Mapping[str, int], vocab_size: int) -> Any:
    transformers = import_module("transformers")
    names = {"qwen2_5_vl": "Qwen2_5_VL", "llava": "Llava", "instructblip": "InstructBlip"}
    settings = _fill_ids(dict(recipe.config), ids)
    settings["text_config"]["vocab_size"] = vocab_size
    config = getattr(transformers, f"{names[family]}Config")(**settings)
    random = import_module("torch").random
    with random.fork_rng(devices=[]):
        random.manual_seed(recipe.seed)  # of the library's initialisation
        model = getattr(transformers, f"{names[family]}ForConditionalGeneration")(config).float().eval()
    model.generation_config = transformers.GenerationConfig(
        do_sample=False,
        bos_token_id=ids[recipe.bos or recipe.pad],
        eos_token_id=[ids[token] for token in (recipe.eos, *recipe.also_stop)],
        pad_token_id=ids[recipe.pad],
    )
    return model


def _place_patches(model: Any, recipe: Recipe) -> None:
    """CLIP's position embeddings, loud enough that a small tower learns where its patches are."""
    for name, weight in model.named_parameters():
        if name.endswith("position_embedding.weight"):
            weight.data.mul_(recipe.position_gain)


def _spread_weights(model: Any, recipe: Recipe, tokenizer: Any) -> None:
    """Weights of unit gain in place of the usual 0.02, which leaves logits nearly uniform.

    With a clear winner at every step, greedy decoding gives the same reply in any batch, engine or
    machine. lm_head speaks words and digits only, and EOS often, so that replies are text and end.
    """
    import torch

    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if weight.ndim >= 2 or name.endswith("class_embedding"):
                noise = torch.randn(weight.shape, generator=generator)
                weight.copy_(_gain(name, recipe) * noise / weight[0].numel() ** 0.5)
            elif name.endswith("bias"):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
        head = model.get_output_embeddings().weight  # (vocabulary, hidden)
        head /= head.norm(dim=1, keepdim=True)
        spoken = _spoken(tokenizer)
        silent = set(range(len(head))) - set(spoken) - {tokenizer.eos_token_id}
        head[sorted(silent)] = 0
        head[[token for token, text in spoken.items() if text.strip().lower() in _ANSWERS]] *= (
            recipe.answer_gain
        )
        head[tokenizer.eos_token_id] *= recipe.eos_gain


def _gain(name: str, recipe: Recipe) -> float:
    if "language_model" in name and ("q_proj" in name or "k_proj" in name):
        return _ATTENTION_GAIN
    projectors = ("multi_modal_projector.linear_2", "merger.mlp.2", "language_projection")
    is_projector = any(projector in name for projector in projectors)
    return recipe.projector_gain if is_projector else 1.0


def _spoken(tokenizer: Any) -> dict[int, str]:
    """The tokens that replies are made of: words of the sentences, digits, marks of points and boxes."""
    words = set(re.findall(r"[A-Za-z]+", " ".join(SENTENCES)))
    plain = set(range(len(tokenizer))) - set(tokenizer.all_special_ids)
    texts = {token: tokenizer.decode([token]) for token in sorted(plain)}
    return {
        token: text
        for token, text in texts.items()
        if text in _MARKS or (text.removeprefix(" ") in words and text[0] in " YN")
    }
