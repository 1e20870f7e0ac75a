// Whatever stands in a domain's description or in the range of addresses: a value or an error.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "cloud/libvirt/domain.h"

using namespace th::cloud::libvirt;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto record = read_record(text)) {
    const auto again = read_record(to_text(*record));
    if (!again || again->vm != record->vm || again->created_ns != record->created_ns) std::abort();
  }
  if (const auto range = parse_addresses(text)) {
    std::set<std::string> taken;
    if (!take_address(*range, taken) || taken.size() != 1) std::abort();
  }
  if (check_shared_folder(text) && text.find_first_of(" '\"\n<&") != text.npos) std::abort();
  DomainSpec spec;
  spec.name = spec.description = text;
  if (domain_xml(spec).size() > 6 * 2 * size + 4096) std::abort();
  return 0;
}
