#pragma once
// Low-rank adapters (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"): the weights of a
// model stay as they are, and each matrix W (out,in) that is adapted is used as W + alpha/rank · B·A, with
// A (rank,in) and B (out,rank) trained. A is random and B zero at first, so the first step is the model's
// own.

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "train/engine.h"

namespace th::train {

/// An engine whose state are the adapters, in float32; every rank has all of them and the whole model, in the
/// precision of `options`. Of the model itself no gradient is kept and no moment: 2 or 4 bytes a parameter,
/// and 16 a parameter of the adapters. ZeRO's stage does not matter. Names of adapters are PEFT's.
/// Errors: those of make_engine; kInvalidArgument naming a target that no matrix of the layers is called
/// ("q_proj", "c_attn"; none given: all of them).
Result<std::unique_ptr<Engine>> make_lora_engine(collective::Group& group, const model::ModelConfig& config,
                                                 const EngineOptions& options);

}  // namespace th::train
