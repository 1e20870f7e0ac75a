#pragma once
// VMs that outlive their slice for the next one of the same account (policy: warm_pool), so that it need not
// wait until they boot. They are nobody's meanwhile: their hosts count as free. Thread: the loop only.

#include <map>
#include <string>
#include <vector>

#include "control/core.h"

namespace th::control {

class WarmPool {
 public:
  explicit WarmPool(Core& core) : core_(core) {}

  /// A VM that its slice, which is being released, does not need any more. Returns whether it stays.
  bool keep(const ledger::Slice& slice, const ledger::Vm& vm);
  /// A kept VM becomes the slice's, ready, for this share. Returns whether there was one.
  bool adopt(const ledger::Slice& slice, const ledger::Share& share);
  /// Whether no kept VM stands on these hosts that the slice cannot adopt; such are ended.
  bool make_room(const ledger::Slice& slice, const std::vector<ledger::Share>& hosts);
  void end_all();
  /// Nothing is kept from now on.
  void close() { closing_ = true; }
  /// Ends what was kept for long enough, or is gone.
  void step();
  bool is_ending(const std::string& vm) const { return ending_.count(vm) > 0; }

 private:
  bool fits(const ledger::Slice& slice, const ledger::Share& share, const ledger::Vm& vm) const;
  void end(const std::string& vm);

  Core& core_;
  std::map<std::string, int64_t> ending_;  // VM → monotonic time before which it is not tried again
  bool closing_ = false;
};

}  // namespace th::control
