#include <cstdint>
#include <string_view>

#include "gateway/journal.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace th::gateway;
  JournalScan scan = scan_journal({reinterpret_cast<const char*>(data), size});
  // What was read must read back as it is.
  if (scan.id.empty()) return 0;
  std::string again =
      encode_journal_header(scan.id, scan.records.empty() ? scan.next_seq : scan.records.front().seq);
  for (const UsageRecord& record : scan.records) again += encode_record(record);
  JournalScan second = scan_journal(again);
  TH_CHECK(second.records == scan.records && second.damaged_lines == 0 && second.next_seq == scan.next_seq);
  return 0;
}
