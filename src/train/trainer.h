#pragma once
// Trains a recipe from its text to a model folder, as one rank of a gang or alone. See docs/training.md.

#include <atomic>
#include <filesystem>
#include <string>

#include "base/result.h"
#include "collective/collective.h"
#include "train/recipe.h"

namespace th::train {

struct TrainOptions {
  std::filesystem::path job_folder = ".";  // checkpoints/ and model/ go here
  std::string metrics_file;                // $TH_METRICS; empty: none. Written by rank 0
  // Set on any rank, by a signal handler say: all ranks save a checkpoint after the step that they are at.
  const std::atomic<bool>* stop = nullptr;
};

struct TrainResult {
  float first_loss = 0;  // nats a token; of step 1, also after a restart
  float last_loss = 0;
  double val_bits_per_byte = 0;
  double bigram_bits_per_byte = 0;
  double tokens_per_s = 0;  // of this attempt, all ranks
  int64_t steps = 0;
};

/// Resumes from the newest intact checkpoint. Every rank returns the same result, all but tokens_per_s to the
/// bit on a rerun with the same seed, world size and OMP_NUM_THREADS. Errors: kCancelled (`stop`, once the
/// checkpoint is saved), kUnavailable (a peer died), kInvalidArgument (text too short), kNotFound, those of
/// writing the model. A checkpoint that cannot be
/// written is a warning only.
Result<TrainResult> train(const Recipe& recipe, collective::Group& group, const TrainOptions& options);

}  // namespace th::train
