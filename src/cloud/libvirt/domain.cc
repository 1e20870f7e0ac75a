#include "cloud/libvirt/domain.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/text.h"

namespace th::cloud::libvirt {
namespace {

std::string format_ipv4(uint32_t address) {
  return fmt::format("{}.{}.{}.{}", address >> 24, (address >> 16) & 255, (address >> 8) & 255,
                     address & 255);
}

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&apos;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

Result<Record> read_fields(const Json& json) {
  Record record;
  TH_TRY(record.cluster, get_string(json, "thunderhead"));
  TH_TRY(record.vm, get_string(json, "vm"));
  TH_RETURN_IF_ERROR(check_name(record.vm, "field 'vm'"));
  TH_TRY(record.host, get_string(json, "host"));
  TH_TRY(record.client_token, get_string(json, "client_token"));
  TH_TRY(record.node_token_sha256, get_string(json, "node_token_sha256"));
  TH_TRY(record.address, get_string(json, "address"));
  TH_TRY(record.created_ns, get_int(json, "created_ns"));
  TH_TRY(record.up, get_bool(json, "up", false));
  TH_TRY(record.emulated, get_bool(json, "emulated", false));
  return record;
}

}  // namespace

std::string to_text(const Record& record) {
  return dump_json(Json{{"thunderhead", record.cluster},
                        {"vm", record.vm},
                        {"host", record.host},
                        {"client_token", record.client_token},
                        {"node_token_sha256", record.node_token_sha256},
                        {"address", record.address},
                        {"created_ns", record.created_ns},
                        {"up", record.up},
                        {"emulated", record.emulated}});
}

Result<Record> read_record(std::string_view text) {
  TH_TRY(const Json json, parse_json(text, "the domain's description"));
  if (!json.is_object()) return fail(Code::kInvalidArgument, "the domain's description is no object");
  return read_fields(json);
}

Result<uint32_t> parse_ipv4(std::string_view text, std::string_view what) {
  auto bad = [&] {
    return fail(Code::kInvalidArgument, fmt::format("{}: want an IPv4 address, got '{}'", what, text));
  };
  const auto parts = split(text, '.');
  if (parts.size() != 4) return bad();
  uint32_t address = 0;
  for (const std::string& part : parts) {
    unsigned byte = 256;
    const auto read = std::from_chars(part.data(), part.data() + part.size(), byte);
    if (read.ec != std::errc() || read.ptr != part.data() + part.size() || byte > 255) return bad();
    address = address << 8 | byte;
  }
  return address;
}

Result<AddressRange> parse_addresses(std::string_view text) {
  auto bad = [&](std::string_view problem) {
    return fail(Code::kInvalidArgument,
                fmt::format("addresses '{}': {}; want 192.168.122.100-192.168.122.199/24", text, problem));
  };
  const size_t dash = text.find('-'), slash = text.find('/');
  if (dash == text.npos || slash == text.npos || slash < dash) return bad("it is no range");
  AddressRange range;
  TH_TRY(range.first, parse_ipv4(text.substr(0, dash), "addresses"));
  TH_TRY(range.last, parse_ipv4(text.substr(dash + 1, slash - dash - 1), "addresses"));
  const std::string_view prefix = text.substr(slash + 1);
  const auto read = std::from_chars(prefix.data(), prefix.data() + prefix.size(), range.prefix);
  if (prefix.empty() || read.ec != std::errc() || read.ptr != prefix.data() + prefix.size() ||
      range.prefix < 8 || range.prefix > 30)
    return bad("its prefix is not 8 to 30");
  if (range.last < range.first) return bad("it ends before it begins");
  if (range.last - range.first >= 65'536) return bad("it has over 65,536");
  const uint32_t mask = ~uint32_t{0} << (32 - range.prefix);
  if ((range.first & mask) != (range.last & mask)) return bad("it is of more than one network");
  return range;
}

Result<std::string> take_address(const AddressRange& range, std::set<std::string>& taken) {
  for (uint32_t i = 0; i <= range.last - range.first; ++i) {
    std::string address = fmt::format("{}/{}", format_ipv4(range.first + i), range.prefix);
    if (taken.insert(address).second) return address;
  }
  return fail(Code::kResourceExhausted,
              fmt::format("every address from {} to {} is a VM's; give cloud.addresses more of them",
                          format_ipv4(range.first), format_ipv4(range.last)));
}

std::string mac_of(std::string_view address) {
  const uint32_t ip = parse_ipv4(address.substr(0, address.find('/')), "address").value_or(0);
  return fmt::format("52:54:00:{:02x}:{:02x}:{:02x}", (ip >> 16) & 255, (ip >> 8) & 255, ip & 255);
}

Status check_shared_folder(std::string_view folder) {
  auto bad = [&](std::string_view problem) {
    return fail(Code::kInvalidArgument, fmt::format("shared folder '{}': {}", folder, problem));
  };
  if (!folder.starts_with('/')) return bad("want an absolute path");
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("/._-+@,~").find(c) != std::string_view::npos;
  };
  if (!std::ranges::all_of(folder, plain))
    return bad("a VM can be told paths of letters, digits and /._-+@,~ only; move or link it");
  static constexpr std::string_view kOfTheVm[] = {"bin",   "dev",  "etc", "init", "lib",
                                                  "lib64", "proc", "run", "sys"};
  const auto parts = split(folder.substr(1), '/');
  const bool empty = std::ranges::all_of(parts, [](const std::string& p) { return p.empty(); });
  if (std::ranges::any_of(parts, [](const std::string& p) { return p == ".." || p == "."; }) || empty)
    return bad("want the path of a folder, without . and ..");
  if (std::ranges::find(kOfTheVm, parts[0]) != std::end(kOfTheVm) || folder == "/usr" ||
      folder.starts_with("/usr/lib"))
    return bad("a VM has a folder of its own there");
  return {};
}

std::string boot_words(const Record& record, std::string_view gateway,
                       const std::vector<std::string>& folders) {
  std::string words = fmt::format("th.name={} th.address={}", record.vm, record.address);
  if (!gateway.empty()) words += fmt::format(" th.gateway={}", gateway);
  for (size_t i = 0; i < folders.size(); ++i) words += fmt::format(" th.mount=share{}:{}", i, folders[i]);
  return words;
}

// Elements: https://libvirt.org/formatdomain.html (9.0).
std::string domain_xml(const DomainSpec& spec) {
  const bool emulated = spec.type == "qemu";
  // On a busy host an emulated TSC is measured wrongly, and a clock by it ran 40 % fast.
  const std::string_view quirks = emulated ? " tsc=unstable no_timer_check" : "";
  std::string xml =
      fmt::format("<domain type='{}'><name>{}</name><title>{}</title><description>{}</description>",
                  spec.type, escape(spec.name), escape(spec.title), escape(spec.description));
  xml += fmt::format("<memory unit='KiB'>{}</memory><vcpu>{}</vcpu>", spec.memory_bytes >> 10, spec.cpus);
  // virtiofs works on the VM's memory.
  xml += "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>";
  xml += fmt::format(
      "<os><type arch='x86_64'{}>hvm</type><kernel>{}</kernel><initrd>{}</initrd>"
      "<cmdline>console=ttyS0 panic=-1{} {}</cmdline></os>",
      spec.type == "test" ? "" : " machine='q35'", escape(spec.kernel), escape(spec.initrd), quirks,
      escape(spec.words));
  if (spec.type != "test") {
    xml += "<features><acpi/></features>";
    xml += fmt::format("<cpu mode='{}'/>", emulated ? "maximum" : "host-passthrough");
  }
  xml +=
      "<clock "
      "offset='utc'/><on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot><on_crash>destroy</"
      "on_crash><devices>";
  if (!spec.config_disk.empty()) {
    xml += fmt::format(
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/>"
        "<target dev='vda' bus='virtio'/><readonly/></disk>",
        escape(spec.config_disk));
    const bool bridged = spec.network.empty();
    xml += fmt::format(
        "<interface type='{0}'><mac address='{2}'/><source {0}='{1}'/><model type='virtio'/></interface>",
        bridged ? "bridge" : "network", escape(bridged ? spec.bridge : spec.network), spec.mac);
  }
  for (size_t i = 0; i < spec.folders.size(); ++i) {
    // No cache: what one VM has written the others read at once.
    xml += fmt::format(
        "<filesystem type='mount'><driver type='virtiofs'/><binary><cache mode='none'/></binary>"
        "<source dir='{}'/><target dir='share{}'/></filesystem>",
        escape(spec.folders[i]), i);
  }
  xml += fmt::format("<serial type='file'><source path='{}'/></serial>", escape(spec.console));
  xml +=
      "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng><memballoon "
      "model='none'/></devices></domain>";
  return xml;
}

}  // namespace th::cloud::libvirt
