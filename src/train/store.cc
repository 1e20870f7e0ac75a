#include "train/store.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "base/env.h"
#include "base/files.h"
#include "base/log.h"
#include "base/units.h"
#include "storage/folder.h"
#include "train/checkpoint.h"

namespace th::train {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFirstPause = 1, kLastPause = 30;  // seconds between uploads that fail
constexpr int kNice = 10;
constexpr const char* kPins = ".upload";

std::string step_name(int64_t step) { return fmt::format("step-{:06}", step); }

storage::BlobsOptions for_uploads(const std::atomic<bool>& stop) {
  return {.retry_ns = 20 * kSecond, .call_ns = 30 * kSecond, .connections = 2, .stop = [&stop] {
            return stop.load();
          }};
}

}  // namespace

Result<storage::Place> checkpoint_place(const std::string& store, const std::string& fingerprint) {
  std::string text = store;
  const char* job = std::getenv("TH_JOB_ID");
  if (job == nullptr) job = std::getenv("SLURM_JOB_ID");
  for (size_t at; (at = text.find("%j")) != std::string::npos;) {
    if (job == nullptr)
      return fail(Code::kInvalidArgument,
                  fmt::format("train.checkpoint.store: '{}' has the job's id in it, but "
                              "neither TH_JOB_ID nor SLURM_JOB_ID is set",
                              store));
    text.replace(at, 2, job);
  }
  auto place = storage::parse_place(text);
  if (!place) return fail(Code::kInvalidArgument, "train.checkpoint.store: " + place.error().message);
  return place->below(fingerprint.substr(0, 12));
}

CheckpointStore::CheckpointStore(storage::Account account, storage::Place place,
                                 CheckpointStoreOptions options)
    : account_(std::move(account)), place_(std::move(place)), options_(std::move(options)) {
  std::error_code ignored;
  fs::remove_all(options_.folder / kPins, ignored);  // of a run before
  thread_ = std::thread([this] { run(); });
}

CheckpointStore::~CheckpointStore() {
  {
    std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
  std::error_code ignored;
  fs::remove_all(options_.folder / kPins, ignored);
}

storage::Place CheckpointStore::place_of(int64_t step) const { return place_.below(step_name(step)); }
fs::path CheckpointStore::pin(int64_t step) const { return options_.folder / kPins / step_name(step); }

Result<std::set<int64_t>> CheckpointStore::list_whole() {
  storage::Blobs blobs(account_, place_.container, for_uploads(stop_));
  const std::string prefix = place_.prefix + "/", suffix = std::string("/") + storage::kManifestName;
  TH_TRY(const auto all, blobs.list(prefix));
  std::set<int64_t> steps;
  for (const storage::Blob& blob : all) {
    const std::string below = blob.name.substr(prefix.size());
    const std::string folder = below.substr(0, below.find('/'));
    const auto step = step_of_name(folder);
    if (step && below == folder + suffix) steps.insert(*step);
  }
  return steps;
}

Status CheckpointStore::fetch(int64_t step) {
  storage::Blobs blobs(account_, place_.container, {.stop = [this] { return stop_.load(); }});
  TH_TRY(const auto files, storage::find_folder(blobs, place_of(step).prefix));
  if (!files) return fail(Code::kNotFound, place_of(step).text() + ": is gone");
  const fs::path partial = options_.folder / (step_name(step) + ".pull");
  TH_RETURN_IF_ERROR(storage::pull_folder(blobs, place_of(step).prefix, *files, partial));
  const fs::path whole = options_.folder / step_name(step);
  std::error_code problem;
  fs::rename(partial, whole, problem);
  if (problem) return fail(errno_error(whole.string(), problem.value()));
  log_info("checkpoint of step {} was brought from {}: {}", step, place_of(step).text(),
           format_bytes(storage::total_bytes(*files)));
  return sync_folder(options_.folder);
}

Status CheckpointStore::fetch_newest() {
  const auto local = list_checkpoints(options_.folder);
  auto stored = list_whole();
  if (!stored && local.empty())
    return fail(stored.error().code,
                fmt::format("whether the store has a checkpoint to go on from is not known: {}",
                            stored.error().message));
  if (!stored) {
    log_warn("the checkpoint store: {}; going on from the local folder", stored.error().message);
    return {};
  }
  seen_ = *stored;
  for (auto step = stored->rbegin(); step != stored->rend(); ++step) {
    if (!local.empty() && *step <= local.front()) return {};
    const Status fetched = fetch(*step);
    if (fetched) return {};
    const Code code = fetched.error().code;
    if (code != Code::kDataLoss && code != Code::kNotFound) {
      if (local.empty()) return fetched;
      log_warn("checkpoint {}: {}; going on from the local folder", place_of(*step).text(),
               fetched.error().message);
      return {};
    }
    log_warn("checkpoint {} is passed over: {}", place_of(*step).text(), fetched.error().message);
    seen_.erase(*step);
  }
  return {};
}

void CheckpointStore::upload(int64_t step) {
  // Hard links keep the files while the folder's own old checkpoints are removed. Where there are none, the
  // checkpoint itself is read.
  std::error_code problem;
  fs::remove_all(pin(step), problem);
  fs::create_directories(pin(step), problem);
  for (fs::directory_iterator it(options_.folder / step_name(step), problem), end; !problem && it != end;
       it.increment(problem))
    fs::create_hard_link(it->path(), pin(step) / it->path().filename(), problem);
  std::error_code ignored;
  if (problem) fs::remove_all(pin(step), ignored);
  {
    std::scoped_lock lock(mutex_);
    wanted_ = step;
  }
  changed_.notify_all();
}

void CheckpointStore::upload_if_missing(int64_t step) {
  if (seen_.count(step) == 0) upload(step);
}

void CheckpointStore::run() {
  // The steps go first.
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), kNice);
  int64_t pause = kFirstPause;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || wanted_ != stored_; });
    if (stop_) return;
    const int64_t step = wanted_;
    lock.unlock();
    const Status pushed = push(step);
    lock.lock();
    if (stop_) return;
    if (pushed) {
      stored_ = step, problem_.clear(), pause = kFirstPause;
      changed_.notify_all();
      continue;
    }
    problem_ = pushed.error().message;
    log_warn("the checkpoint of step {} is not in the store yet, it is tried again: {}", step, problem_);
    changed_.wait_for(lock, std::chrono::seconds(pause), [&] { return stop_ || wanted_ != step; });
    pause = std::min(pause * 2, kLastPause);
  }
}

Status CheckpointStore::push(int64_t step) {
  const int64_t begin_ns = Env::real().monotonic_ns();
  std::error_code problem;
  const fs::path from = fs::exists(pin(step), problem) ? pin(step) : options_.folder / step_name(step);
  storage::Blobs blobs(account_, place_.container, for_uploads(stop_));
  TH_TRY(const auto files, storage::scan_folder(from));
  TH_RETURN_IF_ERROR(
      storage::push_folder(blobs, place_of(step).prefix, from, files, storage::IfOther::kReplace));
  log_info("checkpoint of step {} is in {}: {} in {}", step, place_of(step).text(),
           format_bytes(storage::total_bytes(files)), format_duration(Env::real().monotonic_ns() - begin_ns));
  for (fs::directory_iterator it(options_.folder / kPins, problem), end; !problem && it != end;
       it.increment(problem)) {
    const auto pinned = step_of_name(it->path().filename().string());
    std::error_code ignored;
    if (pinned && *pinned <= step) fs::remove_all(it->path(), ignored);
  }
  remove_old();
  return {};
}

void CheckpointStore::remove_old() {
  storage::Blobs blobs(account_, place_.container, for_uploads(stop_));
  auto whole = list_whole();
  auto all = whole ? blobs.list(place_.prefix + "/") : fail(whole.error());
  if (!all) return log_warn("old checkpoints stay in the store: {}", all.error().message);
  if (whole->empty()) return;
  const auto newest = *whole->rbegin();
  while (static_cast<int64_t>(whole->size()) > options_.keep) whole->erase(whole->begin());
  std::set<int64_t> old;  // also what an upload that was given up has left
  for (const storage::Blob& blob : *all) {
    const std::string below = blob.name.substr(place_.prefix.size() + 1);
    const auto step = step_of_name(below.substr(0, below.find('/')));
    if (step && *step < newest && whole->count(*step) == 0) old.insert(*step);
  }
  for (const int64_t step : old) {
    if (Status gone = storage::remove_folder(blobs, place_of(step).prefix, *all); !gone)
      log_warn("{} stays in the store: {}", place_of(step).text(), gone.error().message);
  }
}

Status CheckpointStore::finish(int64_t timeout_ns) {
  std::unique_lock lock(mutex_);
  if (wanted_ != stored_) log_info("waiting until the checkpoint of step {} is in the store", wanted_);
  if (changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [&] { return wanted_ == stored_; }))
    return {};
  return fail(Code::kUnavailable,
              fmt::format("the last checkpoint, of step {}, is not in the store {} after {}; it is in {}",
                          wanted_, place_of(wanted_).text(), format_duration(timeout_ns),
                          (options_.folder / step_name(wanted_)).string()) +
                  (problem_.empty() ? "" : ": " + problem_));
}

}  // namespace th::train
