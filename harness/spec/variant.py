"""Variant: how to fine-tune, as its author writes it down."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue, model_validator

from harness.spec.schema import Frozen

Dtype = Literal["float32", "bfloat16", "float16"]
DTYPE_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
Method = Literal["adapter", "full", "none"]
Parallel = Literal["none", "data", "sharded"]
OptimizerName = Literal[
    "adamw",
    "adamw_8bit",
    "paged_adamw_8bit",
    "loraplus",
    "lorafa",
    "muon",
    "adafactor",
    "galore",
    "apollo",
]

Positive = Annotated[int, Field(gt=0)]
PLAIN, AUTO = "plain", "auto"  # training paths: the one that takes every plan; what is chosen
INTERPOLATION = Field(
    default=1, description="rotary positions are divided by it, and the context is multiplied"
)
# Names become folders, so they may not lead out of one.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+@-]*$", max_length=200)]


class Quantization(Frozen):
    """How the frozen base weights are stored: the name of a scheme, and its settings.

    ``double`` and any further field are the scheme's; they are checked against it when a variant
    is read (:func:`harness.spec.schemes.resolve_quantization`), so that a record can be read
    where its scheme is not installed.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    type: str = "none"
    double: bool = Field(default=False, description="quantize the quantization constants too")

    @property
    def settings(self) -> dict[str, JsonValue]:
        """The fields besides ``type`` and ``double``."""
        return dict(self.__pydantic_extra__)

    @property
    def label(self) -> str:
        """Short name for people, as the census gives it: ``nf4+dq``, ``hqq bits=4``."""
        settings = "".join(f" {key}={value}" for key, value in sorted(self.settings.items()))
        return self.type + ("+dq" if self.double else "") + settings


class Precision(Frozen):
    """Number formats.

    ``compute`` is the dtype of unquantized base weights and of matrix products on quantized ones;
    ``trainable`` is the dtype in which trained parameters (adapter or whole model) are stored.
    """

    compute: Dtype = "bfloat16"
    trainable: Dtype = "float32"
    products: Literal["compute", "float8"] = Field(
        default="compute",
        description="of frozen linear layers, forwards and for the gradient of their input: in "
        '"compute", or of inputs and weights rounded to eight-bit floats. Scores of the trained '
        "model are taken with the same; merged and exported forms have ordinary products",
    )


class Adapter(Frozen):
    """A PEFT adapter: its type and any field of PEFT's own config class for that type.

    The fields besides ``type`` are PEFT's (``r``, ``lora_alpha``, ``target_modules``, …); they
    are checked against PEFT's class when a plan is made for training
    (:func:`harness.weights.adapter.adapter_config`).
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    type: str = "LORA"

    @property
    def fields(self) -> dict[str, JsonValue]:
        """The fields meant for PEFT's config class."""
        return dict(self.__pydantic_extra__)


class Training(Frozen):
    """The training protocol. A suite may set other defaults; a variant overrides both."""

    sequence_length: Positive = 512
    overflow: Literal["cut", "drop", "window"] = Field(
        default="cut",
        description="a conversation over sequence_length: keep its first whole turns, leave it "
        "out, or split it into windows",
    )
    loss_on: Literal["replies", "everything"] = Field(
        default="replies",
        description='"everything": prompts and the chat template\'s own tokens are learned too, on '
        "the same rows",
    )
    packing: bool = Field(default=False, description="several conversations per row, no leakage")
    micro_batch_size: Positive = Field(default=2, description="rows per forward pass")
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    optimizer: OptimizerName = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    gradient_checkpointing: bool | Literal["auto"] = Field(
        default=False,
        description="compute layers again in the backward pass instead of keeping what they "
        'computed; "auto": only as many as memory asks for, planned beforehand',
    )
    kept_layers: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="with gradient_checkpointing: so many of the last layers are kept all the same",
    )
    memory_gib: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description='what gradient_checkpointing = "auto" may fill; 0: the whole device',
    )
    attention: Literal["full", "shifted"] = Field(
        default="full",
        description='"shifted" is LongLoRA\'s: within groups of tokens, moved by half a group for '
        "half of the heads; scores are always taken with full attention",
    )
    attention_groups: Positive = Field(
        default=4, description="groups of shifted attention in a row of sequence_length"
    )
    activation_offload: bool = Field(
        default=False,
        description="with gradient_checkpointing on a GPU: keep layer inputs in host memory",
    )
    speed: Name = Field(
        default=PLAIN,
        description='the training path: "plain" is TRL\'s SFTTrainer, "fast" the harness\'s own '
        'loop with gradients written out, "recorded" the same loop with autograd, replayed as '
        "CUDA graphs; what a path does not take goes to the next; packages may add others. "
        '"auto": on a processor that multiplies bfloat16 "fast" where it takes the plan, '
        'elsewhere "plain"',
    )
    devices: Positive = Field(default=1, description="devices of one machine that share the work")
    parallel: Parallel = Field(
        default="none",
        description='how several devices share it: "data", every one with the whole model and a '
        'part of each batch (what several devices do unless told otherwise), or "sharded"',
    )

    @property
    def attention_group(self) -> int:
        """Tokens of a group of shifted attention."""
        return max(2, self.sequence_length // self.attention_groups)

    @model_validator(mode="before")
    @classmethod
    def _several_devices_divide_data(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "parallel" in data:
            return data
        several = isinstance(data.get("devices"), int) and data["devices"] > 1
        return {**data, "parallel": "data"} if several else data


class SuiteProtocol(Frozen):
    """What a suite may set for every variant alike."""

    training: Training = Training()
    precision: Precision = Precision()


class Variant(Frozen):
    """How to fine-tune: quantization, precision, adapter, training settings.

    A file in ``variants/`` states only its difference from these defaults; the file's stem is the
    variant's name. ``method`` says what is trained: an adapter, the full model, or nothing (an
    untrained reference).
    """

    name: Name
    description: str
    method: Method = "adapter"
    quantization: Quantization = Quantization()
    precision: Precision = Precision()
    adapter: Adapter | None = None
    interpolation: Positive = INTERPOLATION
    training: Training = Training()
    left: dict[str, JsonValue] = Field(
        default={}, description="what another tool's file asks for and the suite decides here"
    )

    @model_validator(mode="after")
    def _adapter_fits_method(self) -> Variant:
        if (self.adapter is not None) != (self.method == "adapter"):
            msg = f'method = "{self.method}" with adapter = {self.adapter!r}'
            raise ValueError(msg)
        if self.method == "full" and self.quantization.type != "none":
            msg = "full fine-tuning needs an unquantized base"
            raise ValueError(msg)
        return self
