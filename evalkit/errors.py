"""The exception tree.

    EvalkitError            a user's error: printed as one line, exit status 1
    ├── ConfigError         a YAML, a template, a registry entry or an option
    ├── DataError           a data set: missing, damaged or of another shape
    ├── FrameError          coordinates that cannot be converted between frames
    ├── TargetError         a target map that the model's visual tokens cannot hold
    ├── TrainError          a training that cannot start, or would not train what it says
    ├── StoreError          a run folder or shared storage: locked, damaged, of another run, not to be reached
    │   └── Unsent          what was written is on this machine alone, as shared storage does not answer
    └── AdapterError        a model that cannot be loaded or asked
        ├── Unavailable     what this machine lacks for it (a package, a key, a checkpoint)
        └── QuotaExhausted  the provider answers no more until time has passed or somebody has paid

Anything else that is raised is a bug and keeps its traceback. Messages say where, what was
found, what is allowed and what to do.
"""


class EvalkitError(Exception):
    """Base of every error that a user can mend."""


class ConfigError(EvalkitError):
    """A YAML file, a template, a registry entry or an option is wrong."""


class DataError(EvalkitError):
    """A data set is missing, damaged or not of the shape the task needs."""


class FrameError(EvalkitError):
    """Coordinates cannot be converted between the declared frames."""


class TargetError(EvalkitError):
    """What a sample should be looked at for lies outside of the model's visual tokens."""


class TrainError(EvalkitError):
    """A training cannot start, cannot go on, or would silently not train what it says."""


class StoreError(EvalkitError):
    """A run folder is locked, damaged or belongs to another run; or shared storage refuses."""


class InUse(StoreError):
    """Another process is writing there now."""


class Unsent(StoreError):
    """What was written is kept on this machine and not yet on shared storage; the same command sends it."""


class AdapterError(EvalkitError):
    """A model cannot be loaded, or refuses to be asked at all."""


class QuotaExhausted(AdapterError):
    """The provider answers no more for now; the run goes on once there is quota again."""


class Unavailable(AdapterError):
    """This machine lacks something the model needs; the message says what, and how to get it."""
