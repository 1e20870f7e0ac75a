#pragma once
// Checkpoints kept in Azure Blob beside the local folder: a job whose node is lost with its disk goes on from
// there.

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "base/result.h"
#include "storage/account.h"

namespace th::train {

struct CheckpointStoreOptions {
  std::filesystem::path folder;  // the local checkpoints
  int64_t keep = 2;              // newest ones kept in the store
};

/// Mirrors one folder of checkpoints: STORE/FINGERPRINT/step-000050/…, see storage/folder.h. Belongs to rank
/// 0. Thread: one owner; uploads run on a thread of its own, at a lower priority.
class CheckpointStore {
 public:
  /// `place`: where this model's checkpoints are.
  CheckpointStore(storage::Account account, storage::Place place, CheckpointStoreOptions options);
  /// Ends an upload under way.
  ~CheckpointStore();
  CheckpointStore(const CheckpointStore&) = delete;
  CheckpointStore& operator=(const CheckpointStore&) = delete;

  /// Brings the newest whole checkpoint of the store into the folder, if it is newer than those there;
  /// damaged ones are passed over with a warning. Errors: of the store, only where the folder has no
  /// checkpoint: to begin anew would throw away what may be in the store.
  Status fetch_newest();

  /// The finished checkpoint of `step` is to be in the store; one that waited before it is left out. It is
  /// kept from removal until then. Never waits.
  void upload(int64_t step);
  /// The same, unless it was seen there.
  void upload_if_missing(int64_t step);

  /// Waits until the last one is in the store. Errors: kUnavailable, naming the step and why it is not there.
  Status finish(int64_t timeout_ns);

 private:
  void run();
  Status push(int64_t step);
  void remove_old();
  Status fetch(int64_t step);
  Result<std::set<int64_t>> list_whole();
  storage::Place place_of(int64_t step) const;
  std::filesystem::path pin(int64_t step) const;

  const storage::Account account_;
  const storage::Place place_;
  const CheckpointStoreOptions options_;
  std::set<int64_t> seen_;  // steps that fetch_newest() found in the store
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t wanted_ = 0, stored_ = 0;  // by mutex; steps
  std::string problem_;              // by mutex; of the last attempt
  std::thread thread_;
};

/// The store of a recipe: "%j" becomes the job's id (TH_JOB_ID, else SLURM_JOB_ID). Errors: kInvalidArgument.
Result<storage::Place> checkpoint_place(const std::string& store, const std::string& fingerprint);

}  // namespace th::train
