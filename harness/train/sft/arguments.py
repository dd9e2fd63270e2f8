"""Arguments: a plan in the words of TRL's SFTTrainer."""

from __future__ import annotations

from typing import Any

from trl import SFTConfig

from harness.spec.plan import Plan


def sft_arguments(plan: Plan, steps: int, folder: str) -> SFTConfig:
    """How SFTTrainer is to carry out ``steps`` of ``plan``; it writes nothing to ``folder``."""
    compute, trainable = plan.precision.compute, plan.precision.trainable
    return SFTConfig(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=plan.training.micro_batch_size,
        gradient_accumulation_steps=plan.device_rows // plan.training.micro_batch_size,
        max_grad_norm=plan.training.max_grad_norm,
        **_recomputation(bool(plan.training.gradient_checkpointing)),
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        bf16=compute == "bfloat16" and trainable != compute,
        fp16=compute == "float16",
        use_cpu=plan.device.kind == "cpu",
        seed=plan.seed,
        report_to=[],
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=plan.device.kind == "cuda",
        logging_nan_inf_filter=False,
    )


def _recomputation(wanted: bool) -> dict[str, Any]:  # noqa: FBT001 - the value of a setting
    """Gradient checkpointing under the name that this version of transformers has for it."""
    fields = SFTConfig.__dataclass_fields__
    name = "activation_checkpointing"
    if name not in fields:
        name = "gradient_checkpointing"
    return {name: wanted, f"{name}_kwargs": {"use_reentrant": False}}


def no_tokenizer(pad_id: int) -> Any:
    """A tokenizer object for SFTTrainer, which insists on one and here never uses it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    token = "<pad>"  # noqa: S105 - a word, not a secret
    inner = Tokenizer(models.WordLevel({token: pad_id}, unk_token=token))
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=token, eos_token=token)
