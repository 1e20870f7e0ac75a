#pragma once
// A VM as libvirt is told of it: its domain's XML, the record in its description, its address. Values and
// text, no I/O.

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace th::cloud::libvirt {

/// What is kept of a VM, in its domain's description. No secret: whoever may read domains may read this.
struct Record {
  std::string cluster, vm, host;
  std::string client_token;
  std::string node_token_sha256;
  std::string address;  // "192.168.122.100/24"
  int64_t created_ns = 0;
  bool up = false;        // its node was started; from then on a domain that does not run is dead
  bool emulated = false;  // in software
  bool operator==(const Record&) const = default;
};

std::string to_text(const Record& record);
/// Errors: kInvalidArgument (not such a record: the domain is somebody else's).
Result<Record> read_record(std::string_view text);

/// Addresses that VMs may have, IPv4.
struct AddressRange {
  uint32_t first = 0, last = 0;  // host byte order, both included
  int prefix = 24;
  bool operator==(const AddressRange&) const = default;
};
/// "10.0.0.100-10.0.0.199/24". Errors: kInvalidArgument (form, order, over 65,536, not of one network).
Result<AddressRange> parse_addresses(std::string_view text);
/// "10.0.0.100". Errors: kInvalidArgument naming `what`.
Result<uint32_t> parse_ipv4(std::string_view text, std::string_view what);
/// The lowest that is not `taken`, "10.0.0.100/24"; it is added to `taken`. Errors: kResourceExhausted.
Result<std::string> take_address(const AddressRange& range, std::set<std::string>& taken);
/// Of QEMU's block of locally made addresses, unique as long as the last three bytes of the IPv4 address are.
std::string mac_of(std::string_view address);

/// A folder may stand on a kernel's command line and be mounted over nothing that a VM needs. Errors:
/// kInvalidArgument.
Status check_shared_folder(std::string_view folder);

struct DomainSpec {
  std::string type;  // "kvm", "qemu" (software) or "test"
  std::string name, title, description;
  int64_t memory_bytes = 0;
  int cpus = 1;
  std::string kernel, initrd;
  std::string words;        // for init, on the kernel's command line; see boot_words
  std::string config_disk;  // empty: none, and no network
  std::string console;      // file that gets what the VM prints
  std::string bridge, network;
  std::string mac;
  std::vector<std::string> folders;  // shared under the same path, in the order of boot_words
};
std::string domain_xml(const DomainSpec& spec);
/// "th.name=demo-0 th.address=10.0.0.100/24 th.mount=share0:/state/jobs": what tools/vm_init.sh reads.
std::string boot_words(const Record& record, std::string_view gateway,
                       const std::vector<std::string>& folders);

}  // namespace th::cloud::libvirt
