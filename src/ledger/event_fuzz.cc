// The first line of the input is an event's kind, the rest its JSON: whatever is taken must come back as it
// was told.

#include <cstdint>
#include <cstdlib>
#include <string>

#include "ledger/state.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t end = text.find('\n');
  if (end == std::string::npos) return 0;
  const auto event = th::ledger::event_from_json(text.substr(0, end), text.substr(end + 1));
  if (!event) return 0;
  const std::string told = th::ledger::event_to_json(*event);
  const auto again = th::ledger::event_from_json(th::ledger::kind_of(*event), told);
  if (!again || th::ledger::event_to_json(*again) != told) std::abort();
  // Whether it follows or not, applying it to an empty state must not fail badly.
  th::ledger::State state;
  static_cast<void>(th::ledger::apply(state, {1, 1, *event}));
  return 0;
}
