#include "cloud/libvirt/provider.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <thread>

#include "base/env.h"
#include "base/files.h"
#include "base/log.h"
#include "base/text.h"
#include "cloud/check_names.h"
#include "cloud/libvirt/domain.h"
#include "cloud/libvirt/options.h"
#include "cloud/libvirt/virt.h"

namespace th::cloud {
namespace {

namespace fs = std::filesystem;
using libvirt::Connection;
using libvirt::Domain;
using libvirt::Record;

constexpr std::string_view kSeries = "LOCAL";
constexpr std::string_view kUp = "thunderhead: up", kOurs = "thunderhead: ";
constexpr int kStarts = 3;
constexpr int64_t kProbeNs = 10 * kSecond, kLookNs = 100 * kMillisecond;
constexpr int64_t kSilentEmulatedNs = 25 * kSecond, kSilentNs = 10 * kSecond;
constexpr int64_t kQemuBytes = int64_t{64} << 20;  // what QEMU takes beside the VM's memory
constexpr size_t kDiskBytes = 64 << 10, kConsoleBytes = 16 << 20;

int64_t now() { return Env::real().monotonic_ns(); }

Status make_folder(const fs::path& path, mode_t mode) {
  if (mkdir(path.c_str(), mode) != 0 && errno != EEXIST) {
    return fail(errno_error(fmt::format("making {}", path.string()), errno));
  }
  return {};
}

/// A VM that libvirt knows, and what its description says.
struct Machine {
  Domain domain;
  Record record;
};

class LibvirtProvider final : public Provider {
 public:
  LibvirtProvider(LibvirtProviderOptions options, libvirt::AddressRange addresses)
      : options_(std::move(options)), addresses_(addresses), virt_(options_.uri) {
    folders_.push_back(options_.state_dir / "jobs");
    for (const fs::path& folder : options_.share) folders_.push_back(folder);
  }

  std::string_view kind() const override { return "libvirt"; }
  Status check_series(std::string_view series) const override {
    if (series == kSeries) return {};
    return fail(Code::kUnsatisfiable,
                fmt::format("provider 'libvirt' makes VMs without accelerators, series {} only; {} has to "
                            "come from another provider; ask for series {}",
                            kSeries, series, kSeries));
  }

  Patience patience() const override {
    Patience patience;
    // A gang of VMs is started one after another.
    patience.create_ns = (emulated_ == 0 ? 5 : 20) * kMinute;
    patience.boot_ns = patience.create_ns + 2 * kMinute;
    patience.first_word_ns = kMinute;
    patience.remove_ns = kMinute;
    patience.list_every_ns = 2 * kSecond;
    return patience;
  }

  void interrupt() override { interrupted_ = true; }

  Result<std::vector<VmState>> create(const CreateVms& request, int64_t timeout_ns) override {
    TH_RETURN_IF_ERROR(check_names(request));
    for (const VmSpec& spec : request.vms) TH_RETURN_IF_ERROR(check_series(spec.series));
    const int64_t deadline = now() + timeout_ns;
    std::unique_lock lock(creating_, std::chrono::nanoseconds(timeout_ns));
    if (!lock) return fail(Code::kDeadlineExceeded, "other VMs are being created; try again");
    TH_RETURN_IF_ERROR(libvirt::check_image(libvirt::image_of(options_, request)));
    TH_TRY(const Connection connection, virt_.open(timeout_ns));
    TH_TRY(auto machines, known(connection));
    for (const VmSpec& spec : request.vms) {
      const auto found = machines.find(spec.vm);
      if (found != machines.end() && found->second.record.client_token != request.client_token)
        return fail(Code::kAlreadyExists,
                    fmt::format("VM '{}' exists already, made by another request", spec.vm));
    }
    auto made = make_all(connection, machines, request, deadline);
    if (made) return made;
    for (const VmSpec& spec : request.vms) {
      if (auto removed = remove(spec.vm, kMinute); !removed) log_warn("{}", removed.error().message);
    }
    return made;
  }

  Result<VmState> describe(std::string_view vm, int64_t timeout_ns) override {
    TH_RETURN_IF_ERROR(check_name(vm, "VM"));
    TH_TRY(const auto states, list(timeout_ns));
    const auto found = std::ranges::find(states, vm, &VmState::vm);
    if (found == states.end()) return fail(Code::kNotFound, fmt::format("VM '{}' does not exist", vm));
    return *found;
  }

  Result<std::vector<VmState>> list(int64_t timeout_ns) override {
    TH_TRY(const Connection connection, virt_.open(timeout_ns));
    TH_TRY(const auto machines, known(connection));
    std::map<std::string, VmState> states;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(options_.state_dir / "libvirt", error)) {
      VmState half;
      half.vm = entry.path().filename();
      half.detail = "its making was interrupted";
      if (check_name(half.vm, "VM")) states[half.vm] = half;
    }
    for (const auto& [vm, machine] : machines) states[vm] = look(machine);
    std::vector<VmState> out;
    for (auto& [vm, state] : states) out.push_back(std::move(state));
    return out;
  }

  Status remove(std::string_view vm, int64_t timeout_ns) override {
    TH_RETURN_IF_ERROR(check_name(vm, "VM"));
    TH_TRY(const Connection connection, virt_.open(timeout_ns));
    const std::string doing = fmt::format("deleting VM '{}'", vm);
    auto domain = libvirt::find_domain(connection, domain_name(vm));
    if (domain) {
      const auto record = libvirt::read_record(libvirt::description_of(*domain));
      if (record && record->cluster == options_.cluster)
        TH_RETURN_IF_ERROR(libvirt::delete_domain(*domain, doing));
    } else if (domain.error().code != Code::kNotFound) {
      return fail(domain.error());
    }
    std::error_code error;
    fs::remove_all(folder(vm), error);
    if (error) return fail(errno_error(fmt::format("removing {}", folder(vm).string()), error.value()));
    return {};
  }

 private:
  std::string domain_name(std::string_view vm) const { return fmt::format("{}-{}", options_.cluster, vm); }
  fs::path folder(std::string_view vm) const { return options_.state_dir / "libvirt" / vm; }

  Result<std::map<std::string, Machine>> known(const Connection& connection) const {
    TH_TRY(auto domains, libvirt::all_domains(connection));
    std::map<std::string, Machine> machines;
    for (Domain& domain : domains) {
      auto record = libvirt::read_record(libvirt::description_of(domain));
      if (!record || record->cluster != options_.cluster) continue;
      const std::string vm = record->vm;
      machines.emplace(vm, Machine{std::move(domain), *std::move(record)});
    }
    return machines;
  }

  VmState look(const Machine& machine) const {
    const Record& record = machine.record;
    VmState state;
    state.vm = record.vm, state.host = record.host, state.client_token = record.client_token;
    state.node_token_sha256 = record.node_token_sha256;
    state.created_ns = record.created_ns;
    const bool active = libvirt::is_active(machine.domain).value_or(false);
    if (record.up) state.phase = active ? VmPhase::kRunning : VmPhase::kDead;
    state.detail = fmt::format("domain {}, {}, {}", domain_name(record.vm), record.address,
                               record.emulated ? "software emulation" : "KVM");
    if (!active) state.detail += record.up ? ", has stopped: " + last_words(record.vm) : ", not started";
    return state;
  }

  /// The end of what the VM has printed, for people; empty when nothing can be read.
  std::string last_words(std::string_view vm) const {
    const auto text = read_file(folder(vm) / "console.log", kConsoleBytes);
    if (!text && text.error().code == Code::kNotFound) return "nothing";
    if (!text) return fmt::format("{} cannot be read", (folder(vm) / "console.log").string());
    std::string last = "nothing", ours;
    for (std::string& line : split(*text, '\n')) {
      std::erase_if(line, [](char c) { return c < ' ' || c > '~'; });
      if (line.find_first_not_of(' ') != line.npos) last = line.substr(0, 200);
      if (line.starts_with(kOurs) && !line.starts_with(kUp)) ours = last;
    }
    if (!ours.empty()) return ours;
    return last;
  }

  bool printed(std::string_view vm, std::string_view words) const {
    const auto text = read_file(folder(vm) / "console.log", kConsoleBytes);
    return text && text->find(words) != text->npos;
  }

  /// Decided once: a device that opens does not mean that a guest runs, so one is started.
  Result<bool> emulated(const Connection& connection) {
    if (emulated_ >= 0) return emulated_ == 1;
    bool software = options_.acceleration == Acceleration::kSoftware || is_test(connection);
    if (options_.acceleration == Acceleration::kAuto && !software) {
      TH_TRY(const bool runs, kvm_runs(connection));
      software = !runs;
    }
    emulated_ = software ? 1 : 0;
    log_info(
        "libvirt at {}: VMs run {}", options_.uri,
        software
            ? "in software emulation of the processor, since no guest runs with KVM or the settings say so"
            : "with KVM");
    return software;
  }

  static bool is_test(const Connection& connection) {
    const char* type = virConnectGetType(connection.get());
    return type != nullptr && std::string_view(type) == "TEST";
  }

  Result<bool> kvm_runs(const Connection& connection) const {
    char* capabilities =
        virConnectGetDomainCapabilities(connection.get(), nullptr, "x86_64", "q35", "kvm", 0);
    if (capabilities == nullptr) return false;
    free(capabilities);
    constexpr std::string_view kProbe = ".probe";
    TH_RETURN_IF_ERROR(make_folder(folder(kProbe), 0711));
    libvirt::DomainSpec spec = domain_spec(kProbe, "kvm", "th.name=probe", options_.image);
    spec.name = options_.cluster + "-probe-of-kvm";
    Domain probe(virDomainCreateXML(connection.get(), libvirt::domain_xml(spec).c_str(),
                                    VIR_DOMAIN_START_AUTODESTROY));
    const int64_t until = now() + kProbeNs;
    while (probe && now() < until && !interrupted_ && !printed(kProbe, kUp)) pause();
    const bool runs = probe && printed(kProbe, kUp);
    if (probe) virDomainDestroy(probe.get());
    std::error_code ignored;
    fs::remove_all(folder(kProbe), ignored);
    return runs;
  }

  static void pause() { std::this_thread::sleep_for(std::chrono::nanoseconds(kLookNs)); }

  Status check_room(const Connection& connection, size_t num_vms) const {
    int count = 0;
    if (virNodeGetMemoryStats(connection.get(), VIR_NODE_MEMORY_STATS_ALL_CELLS, nullptr, &count, 0) < 0 ||
        count <= 0)
      return {};  // this hypervisor does not tell
    std::vector<virNodeMemoryStats> stats(static_cast<size_t>(count));
    if (virNodeGetMemoryStats(connection.get(), VIR_NODE_MEMORY_STATS_ALL_CELLS, stats.data(), &count, 0) < 0)
      return {};
    int64_t free_bytes = 0;
    for (const virNodeMemoryStats& stat : stats) {
      if (std::string_view(stat.field) != VIR_NODE_MEMORY_STATS_TOTAL)
        free_bytes += static_cast<int64_t>(stat.value) << 10;
    }
    const int64_t need_bytes = static_cast<int64_t>(num_vms) * (options_.memory_bytes + kQemuBytes);
    if (need_bytes <= free_bytes) return {};
    return fail(
        Code::kNoCapacity,
        fmt::format("the host of {} has {} of memory free, {} VMs of {} take {}; ask for fewer, or set "
                    "cloud.memory lower",
                    options_.uri, format_bytes(free_bytes), num_vms, format_bytes(options_.memory_bytes),
                    format_bytes(need_bytes)));
  }

  Result<std::vector<VmState>> make_all(const Connection& connection,
                                        std::map<std::string, Machine>& machines, const CreateVms& request,
                                        int64_t deadline) {
    TH_TRY(const bool software, emulated(connection));
    const auto missing =
        std::ranges::count_if(request.vms, [&](const VmSpec& spec) { return !machines.contains(spec.vm); });
    TH_RETURN_IF_ERROR(check_room(connection, static_cast<size_t>(missing)));
    std::set<std::string> taken;
    for (const auto& [vm, machine] : machines) taken.insert(machine.record.address);
    for (const VmSpec& spec : request.vms) {
      if (machines.contains(spec.vm)) continue;
      TH_TRY(Machine machine, define(connection, spec, request, taken));
      machines.emplace(spec.vm, std::move(machine));
    }
    // Processors that are emulated at the same time starve each other when they start.
    for (const VmSpec& spec : request.vms) {
      Machine& machine = machines.at(spec.vm);
      TH_RETURN_IF_ERROR(software ? bring_up(machine, deadline) : start(machine));
    }
    std::vector<VmState> states;
    for (const VmSpec& spec : request.vms) {
      TH_RETURN_IF_ERROR(bring_up(machines.at(spec.vm), deadline));
      states.push_back(look(machines.at(spec.vm)));
    }
    return states;
  }

  /// The disk is there before the domain is: a domain that exists can be started.
  Result<Machine> define(const Connection& connection, const VmSpec& spec, const CreateVms& request,
                         std::set<std::string>& taken) {
    Record record{options_.cluster,      spec.vm, spec.host,     request.client_token, "", "",
                  Env::real().unix_ns(), false,   emulated_ == 1};
    TH_TRY(record.address, libvirt::take_address(addresses_, taken));
    const std::string token = random_token();
    record.node_token_sha256 = sha256_hex(token);
    TH_RETURN_IF_ERROR(make_folder(folder(spec.vm), 0711));
    std::string disk = libvirt::node_config(options_, spec, record, token);
    TH_CHECK(disk.size() < kDiskBytes);
    disk.resize(kDiskBytes, '\0');
    TH_RETURN_IF_ERROR(write_file_durable(folder(spec.vm) / "node.img", disk, 0600));
    std::vector<std::string> shared;
    for (const fs::path& path : folders_) shared.push_back(path);
    const std::string type = is_test(connection) ? "test" : emulated_ == 1 ? "qemu" : "kvm";
    libvirt::DomainSpec domain =
        domain_spec(spec.vm, type, libvirt::boot_words(record, options_.gateway, shared),
                    libvirt::image_of(options_, request));
    domain.title = fmt::format("Thunderhead node {} of {}", spec.vm, options_.cluster);
    domain.description = libvirt::to_text(record);
    domain.config_disk = folder(spec.vm) / "node.img";
    domain.bridge = options_.bridge, domain.network = options_.network;
    domain.mac = libvirt::mac_of(record.address);
    domain.folders = shared;
    Machine machine{Domain(virDomainDefineXML(connection.get(), libvirt::domain_xml(domain).c_str())),
                    std::move(record)};
    if (!machine.domain) return fail(libvirt::libvirt_error(fmt::format("defining VM '{}'", spec.vm)));
    return machine;
  }

  libvirt::DomainSpec domain_spec(std::string_view vm, const std::string& type, const std::string& words,
                                  const fs::path& image) const {
    libvirt::DomainSpec spec;
    spec.type = type, spec.words = words, spec.name = domain_name(vm);
    spec.memory_bytes = options_.memory_bytes, spec.cpus = options_.cpus;
    spec.kernel = image / "vmlinuz", spec.initrd = image / "initrd.img";
    spec.console = folder(vm) / "console.log";
    return spec;
  }

  Status start(const Machine& machine) const {
    const std::string& vm = machine.record.vm;
    TH_TRY(const bool active, libvirt::is_active(machine.domain));
    if (active || machine.record.up) return {};
    std::error_code ignored;
    fs::remove(folder(vm) / "console.log", ignored);
    if (virDomainCreate(machine.domain.get()) == 0) return {};
    Error error = libvirt::libvirt_error(fmt::format("starting VM '{}'", vm));
    if (options_.network.empty() && error.message.find('\'' + options_.bridge + '\'') != std::string::npos)
      error.message += fmt::format("; make bridge {} on the host of {}, or set cloud.bridge", options_.bridge,
                                   options_.uri);
    if (error.message.find("kernel") != std::string::npos ||
        error.message.find("ram disk") != std::string::npos)
      error.message += "; build its image anew with tools/vm_image";
    return fail(std::move(error));
  }

  /// Until the VM runs its node. A VM that was up before is left as it is.
  Status bring_up(Machine& machine, int64_t deadline) {
    const std::string& vm = machine.record.vm;
    const int64_t boot_ns = options_.boot_ns > 0 ? options_.boot_ns
                            : emulated_ == 1     ? 3 * kMinute
                                                 : 30 * kSecond;
    for (int attempt = 1; !machine.record.up; ++attempt) {
      TH_RETURN_IF_ERROR(start(machine));
      TH_TRY(const std::string problem, wait_until_up(machine, std::min(deadline, now() + boot_ns)));
      if (problem.empty()) {
        machine.record.up = true;
        return libvirt::set_description(machine.domain, libvirt::to_text(machine.record));
      }
      if (now() >= deadline)
        return fail(Code::kDeadlineExceeded, fmt::format("VM '{}': {} in the time given", vm, problem));
      log_warn("VM {}: {} (start {} of {})", vm, problem, attempt, kStarts);
      if (attempt == kStarts)
        return fail(Code::kUnavailable,
                    fmt::format("VM '{}' did not come up, started {} times: {}; see that its image is whole "
                                "(tools/vm_image)",
                                vm, kStarts, problem));
      if (libvirt::is_active(machine.domain).value_or(false)) virDomainDestroy(machine.domain.get());
    }
    return {};
  }

  /// Returns: what keeps it from being up; empty when it is. A slow machine prints on, one that hangs does
  /// not. Errors: of libvirt, kUnavailable (interrupted).
  Result<std::string> wait_until_up(const Machine& machine, int64_t until) const {
    const std::string& vm = machine.record.vm;
    const int64_t patience_ns = emulated_ == 1 ? kSilentEmulatedNs : kSilentNs;
    size_t size = 0;
    for (int64_t silent_since = now();; pause()) {
      const std::string text = read_file(folder(vm) / "console.log", kConsoleBytes).value_or("");
      if (text.find(kUp) != text.npos) return "";
      if (interrupted_) return fail(Code::kUnavailable, "the controller ends");
      TH_TRY(const bool active, libvirt::is_active(machine.domain));
      if (!active) return "it stopped while it booted; the last that it printed: " + last_words(vm);
      if (text.size() != size) size = text.size(), silent_since = now();
      if (now() >= until || now() - silent_since > patience_ns)
        return fmt::format("it hangs; the last that it printed: {}", last_words(vm));
    }
  }

  LibvirtProviderOptions options_;
  libvirt::AddressRange addresses_;
  std::vector<fs::path> folders_;
  libvirt::Virt virt_;
  std::timed_mutex creating_;
  std::atomic<int> emulated_ = -1;  // -1: not decided yet
  std::atomic<bool> interrupted_ = false;
};

}  // namespace

Result<std::unique_ptr<Provider>> make_libvirt_provider(LibvirtProviderOptions options) {
  TH_RETURN_IF_ERROR(libvirt::check_options(options));
  TH_RETURN_IF_ERROR(libvirt::check_image(options.image));
  TH_TRY(const auto addresses, libvirt::parse_addresses(options.addresses));
  for (const char* name : {"libvirt", "jobs"})
    TH_RETURN_IF_ERROR(make_folder(options.state_dir / name, 0711));
  for (const fs::path& folder : options.share) {
    if (!fs::is_directory(folder))
      return fail(Code::kNotFound, fmt::format("shared folder {}: no such folder", folder.string()));
  }
  auto provider = std::make_unique<LibvirtProvider>(std::move(options), addresses);
  return std::unique_ptr<Provider>(std::move(provider));
}

}  // namespace th::cloud
