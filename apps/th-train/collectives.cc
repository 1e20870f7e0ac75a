#include "collectives.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <sstream>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "collective/connect/connect.h"
#include "open_mpi_source.h"
#include "ranks.h"

namespace th {
namespace {

using collective::Group;

constexpr const char* kAbout =
    "Measures the collectives among ranks of this host, which it starts, beside memcpy of as many bytes by "
    "as many processes and, where it is installed, Open MPI over shared memory, in turns. Inputs lie in "
    "ordinary memory. GB/s are the bytes of one rank's buffer (--mib) over the time until the slowest rank "
    "is done, in all three columns the same; medians of runs and turns.";

struct Figure {
  double seconds = 0;
  bool right = false;
};

/// Value i of a rank: small integers, so that sums are exact in any order. As in
/// bench/collectives/open_mpi.c.
float value_of(size_t i, int rank) { return static_cast<float>(i % 97 + 100 * static_cast<size_t>(rank)); }
float sum_of(size_t i, int ranks) {
  const auto n = static_cast<size_t>(ranks);
  return static_cast<float>(i % 97 * n + 50 * n * (n - 1));
}

/// As many for each rank.
size_t floats_of(int64_t mib, int ranks) {
  return (static_cast<size_t>(mib) << 20) / sizeof(float) / ranks * ranks;
}

/// One rank's buffers: `data` begins as `input`; `other` is for what is not in place.
struct Bench {
  Group group;
  std::vector<float> input, data, other;

  int rank() const { return group.rank(); }
  int ranks() const { return group.world_size(); }
  size_t each() const { return data.size() / ranks(); }
};

struct Operation {
  const char* name;
  Status (*run)(Bench&);
  bool (*is_right)(const Bench&);
};

/// Elements [begin, end) are the sums over ranks.
bool are_sums(const Bench& b, size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i) {
    if (b.data[i] != sum_of(i, b.ranks())) return false;
  }
  return true;
}

/// Elements [at, at + size) are those of `rank` from `begin` on.
bool are_values(const std::vector<float>& data, size_t at, size_t size, int rank, size_t begin) {
  for (size_t i = 0; i < size; ++i) {
    if (data[at + i] != value_of(begin + i, rank)) return false;
  }
  return true;
}

bool gathered(const Bench& b) {
  for (int rank = 0; rank < b.ranks(); ++rank) {
    if (!are_values(b.data, rank * b.each(), b.each(), rank, rank * b.each())) return false;
  }
  return true;
}

bool exchanged(const Bench& b) {
  for (int rank = 0; rank < b.ranks(); ++rank) {
    if (!are_values(b.other, rank * b.each(), b.each(), rank, b.rank() * b.each())) return false;
  }
  return true;
}

/// From rank 0 to 1, 2 to 3, …
Status pass_on(Bench& b) {
  if (b.rank() % 2 == 1) return b.group.receive(b.data, b.rank() - 1);
  return b.rank() + 1 < b.ranks() ? b.group.send(b.data, b.rank() + 1) : Status();
}

constexpr size_t kOfTraining = 4;  // the first ones: what data-parallel training calls
const Operation kOperations[] = {
    {"all_reduce", [](Bench& b) { return b.group.all_reduce(b.data); },
     [](const Bench& b) { return are_sums(b, 0, b.data.size()); }},
    {"reduce_scatter", [](Bench& b) { return b.group.reduce_scatter(b.data); },
     [](const Bench& b) { return are_sums(b, b.rank() * b.each(), (b.rank() + 1) * b.each()); }},
    {"all_gather", [](Bench& b) { return b.group.all_gather(b.data); }, gathered},
    {"broadcast", [](Bench& b) { return b.group.broadcast(b.data, 0); },
     [](const Bench& b) { return are_values(b.data, 0, b.data.size(), 0, 0); }},
    {"all_to_all", [](Bench& b) { return b.group.all_to_all(b.data, b.other); }, exchanged},
    {"send", pass_on,
     [](const Bench& b) {
       return are_values(b.data, 0, b.data.size(), b.rank() % 2 == 1 ? b.rank() - 1 : b.rank(), 0);
     }},
};

Status copy_once(Bench& b) {
  std::memcpy(b.other.data(), b.data.data(), b.data.size() * sizeof(float));
  return {};
}

/// What each rank has of a figure, in their order.
Result<std::vector<float>> of_all_ranks(Bench& b, float mine) {
  std::vector<float> all(static_cast<size_t>(b.ranks()));
  all[b.rank()] = mine;
  TH_RETURN_IF_ERROR(b.group.all_gather(all));
  return all;
}

/// One run, as long as its slowest rank takes, right when all ranks find it so. Nobody checks before all are
/// done: that would take the core from who is not.
Result<Figure> run_once(Bench& b, const Operation& operation) {
  std::ranges::copy(b.input, b.data.begin());
  std::ranges::fill(b.other, -1.f);
  TH_RETURN_IF_ERROR(b.group.barrier());
  const auto start = std::chrono::steady_clock::now();
  TH_RETURN_IF_ERROR(operation.run(b));
  const std::chrono::duration<float> took = std::chrono::steady_clock::now() - start;
  TH_TRY(const std::vector<float> seconds, of_all_ranks(b, took.count()));
  TH_TRY(const std::vector<float> right, of_all_ranks(b, operation.is_right(b) ? 1.f : 0.f));
  return Figure{std::ranges::max(seconds), std::ranges::min(right) == 1};
}

double middle(std::vector<double> seconds) {
  std::ranges::sort(seconds);
  return seconds[seconds.size() / 2];
}

Result<Figure> median(Bench& b, int runs, const Operation& operation) {
  std::vector<double> seconds;
  bool right = true;
  for (int i = 0; i < runs; ++i) {
    TH_TRY(const Figure figure, run_once(b, operation));
    seconds.push_back(figure.seconds);
    right = right && figure.right;
  }
  return Figure{middle(std::move(seconds)), right};
}

/// What one rank does. Rank 0 prints a line of JSON for each operation.
Status be_rank(int64_t mib, int runs, size_t num_operations) {
  TH_TRY(const collective::Rendezvous rendezvous, collective::rendezvous_from_env());
  TH_TRY(Group group, collective::connect(rendezvous, {}));
  const size_t num_floats = floats_of(mib, group.world_size());
  Bench bench{std::move(group), std::vector<float>(num_floats), std::vector<float>(num_floats),
              std::vector<float>(num_floats)};
  for (size_t i = 0; i < num_floats; ++i) bench.input[i] = value_of(i, bench.rank());
  const Operation copying = {"memcpy", copy_once, [](const Bench& b) { return b.data == b.other; }};
  for (const Operation& operation : std::span(kOperations).first(num_operations)) {
    TH_TRY(const Figure figure, median(bench, runs, operation));
    TH_TRY(const Figure copy, median(bench, runs, copying));
    if (bench.rank() != 0) continue;
    fmt::print("{}\n", dump_json({{"name", operation.name},
                                  {"seconds", figure.seconds},
                                  {"memcpy_seconds", copy.seconds},
                                  {"right", figure.right && copy.right}}));
  }
  return bench.group.barrier();
}

struct Folder {
  std::filesystem::path path;
  ~Folder() {
    std::error_code ignored;
    if (!path.empty()) std::filesystem::remove_all(path, ignored);
  }
};

struct Close {
  void operator()(FILE* pipe) const { pclose(pipe); }
};

/// Standard output of a shell command. Errors: kInternal with what it wrote.
Result<std::string> output_of(const std::string& command) {
  std::unique_ptr<FILE, Close> pipe(popen(command.c_str(), "re"));
  if (!pipe) return fail(errno_error(command, errno));
  std::string text;
  char part[4096];
  while (size_t size = fread(part, 1, sizeof(part), pipe.get())) text.append(part, size);
  if (const int status = pclose(pipe.release()); status != 0)
    return fail(Code::kInternal, fmt::format("'{}' failed: {}", command, text));
  return text;
}

/// Builds bench/collectives/open_mpi.c and runs it. Errors: kNotFound when there is no Open MPI.
Result<std::map<std::string, Figure>> measure_open_mpi(int ranks, int64_t bytes, int runs,
                                                       size_t num_operations) {
  if (!output_of("command -v mpicc && command -v mpirun"))
    return fail(Code::kNotFound, "there is no mpicc; install the packages openmpi-bin and libopenmpi-dev");
  std::string name = (std::filesystem::temp_directory_path() / "th-collectives-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) return fail(errno_error(name, errno));
  const Folder folder{name};
  TH_RETURN_IF_ERROR(write_file_durable(folder.path / "open_mpi.c", kOpenMpiSource));
  TH_RETURN_IF_ERROR(output_of(fmt::format("cd '{}' && mpicc -O2 open_mpi.c -o open_mpi 2>&1", name)));
  // Vader is Open MPI 4's shared memory, with single copies (CMA) where the kernel allows them.
  TH_TRY(const std::string text,
         output_of(fmt::format(
             "cd '{}' && mpirun {} --oversubscribe --bind-to none --mca btl self,vader -n {} "
             "./open_mpi {} {} {} 2>open_mpi.log || cat open_mpi.log",
             name, geteuid() == 0 ? "--allow-run-as-root" : "", ranks, bytes, runs, num_operations)));
  std::map<std::string, Figure> figures;
  std::istringstream lines(text);
  std::string operation;
  for (Figure figure; lines >> operation >> figure.seconds >> figure.right;) figures[operation] = figure;
  if (figures.empty()) return fail(Code::kInternal, "Open MPI printed no figures: " + text);
  return figures;
}

/// The lines that rank 0 printed.
Result<std::vector<Json>> measure_ours(int ranks, int64_t mib, int runs, bool all) {
  const UniqueFd output(memfd_create("collectives", MFD_CLOEXEC));
  if (!output) return fail(errno_error("memfd_create", errno));
  std::vector<std::string> arguments = {"collectives",       "--as-rank", "--mib",
                                        std::to_string(mib), "--runs",    std::to_string(runs)};
  if (all) arguments.push_back("--all");
  TH_RETURN_IF_ERROR(run_ranks(ranks, arguments, output.get()));
  TH_TRY(const std::string text, read_file(fmt::format("/proc/self/fd/{}", output.get())));
  std::vector<Json> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    TH_TRY(Json parsed, parse_json(line, "what rank 0 printed"));
    lines.push_back(std::move(parsed));
  }
  return lines;
}

/// What the turns gave of one operation, in seconds.
struct Turns {
  std::string name;
  std::vector<double> ours, copy, open_mpi;
  bool right = true;
};

/// Ours and theirs take turns, as the machine is not always as fast.
Result<Json> compare(int ranks, int64_t mib, int runs, int turns, bool all) {
  const auto bytes = static_cast<int64_t>(floats_of(mib, ranks) * sizeof(float));
  std::vector<Turns> operations;
  std::string open_mpi = "measured";
  for (int turn = 0; turn < turns; ++turn) {
    TH_TRY(const std::vector<Json> ours, measure_ours(ranks, mib, runs, all));
    const auto theirs = measure_open_mpi(ranks, bytes, runs, ours.size());
    if (!theirs) open_mpi = "not measured: " + theirs.error().message;
    operations.resize(ours.size());
    for (size_t i = 0; i < ours.size(); ++i) {
      Turns& operation = operations[i];
      TH_TRY(operation.name, get_string(ours[i], "name"));
      TH_TRY(const double seconds, get_double(ours[i], "seconds"));
      TH_TRY(const double copy_seconds, get_double(ours[i], "memcpy_seconds"));
      TH_TRY(const bool right, get_bool(ours[i], "right", false));
      operation.ours.push_back(seconds);
      operation.copy.push_back(copy_seconds);
      operation.right = operation.right && right;
      if (!theirs || !theirs->contains(operation.name)) continue;
      operation.open_mpi.push_back(theirs->at(operation.name).seconds);
      operation.right = operation.right && theirs->at(operation.name).right;
    }
  }
  const auto gb_per_s = [&](const std::vector<double>& seconds) {
    return seconds.empty() ? Json() : Json(static_cast<double>(bytes) / middle(seconds) / 1e9);
  };
  Json lines = Json::array();
  for (const Turns& operation : operations) {
    lines.push_back({{"name", operation.name},
                     {"gb_per_s", gb_per_s(operation.ours)},
                     {"memcpy_gb_per_s", gb_per_s(operation.copy)},
                     {"open_mpi_gb_per_s", gb_per_s(operation.open_mpi)},
                     {"checked", operation.right}});
  }
  return Json{{"ranks", ranks}, {"bytes", bytes}, {"operations", lines}, {"open_mpi", open_mpi}};
}

void print_table(const Json& result) {
  fmt::print("{:<16} {:>10} {:>10} {:>10}   GB/s\n", "operation", "Thunderhead", "memcpy", "Open MPI");
  for (const Json& line : result["operations"]) {
    const Json& open_mpi = line["open_mpi_gb_per_s"];
    fmt::print("{:<16} {:>10.2f} {:>10.2f} {:>10}   {}\n", line["name"].get<std::string>(),
               line["gb_per_s"].get<double>(), line["memcpy_gb_per_s"].get<double>(),
               open_mpi.is_null() ? "-" : fmt::format("{:.2f}", open_mpi.get<double>()),
               line["checked"].get<bool>() ? "results right" : "RESULTS WRONG");
  }
}

int report(const Error& error) {
  fmt::print(stderr, "th-train: {}\n", error.message);
  return 1;
}

}  // namespace

int collectives_command(int argc, char** argv) {
  CLI::App app(kAbout, "th-train collectives");
  int ranks = 4, runs = 5, turns = 3;
  int64_t mib = 64;
  bool json = false, all = false, as_rank = false;
  app.add_option("--ranks", ranks, "processes")->check(CLI::Range(2, 64))->capture_default_str();
  app.add_option("--mib", mib, "each rank's buffer")->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--runs", runs, "of each operation in a turn")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--turns", turns, "of ours and Open MPI's")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_flag("--all", all, "also all-to-all, and send: rank 0 to 1, 2 to 3, …");
  app.add_flag("--json", json, "print one line of JSON");
  app.add_flag("--as-rank", as_rank)->group("");
  CLI11_PARSE(app, argc, argv);

  if (as_rank) {
    const Status status = be_rank(mib, runs, all ? std::size(kOperations) : kOfTraining);
    return status ? 0 : report(status.error());
  }
  const Result<Json> result = compare(ranks, mib, runs, turns, all);
  if (!result) return report(result.error());
  const Json& open_mpi = (*result)["open_mpi"];
  if (open_mpi != "measured") fmt::print(stderr, "Open MPI is {}\n", open_mpi.get<std::string>());
  json ? fmt::print("{}\n", dump_json(*result)) : print_table(*result);
  return std::ranges::all_of((*result)["operations"],
                             [](const Json& line) { return line["checked"] == true; })
             ? 0
             : 1;
}

}  // namespace th
