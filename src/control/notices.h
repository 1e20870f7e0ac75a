#pragma once
// What the cloud tells in advance: evictions and maintenance. Ranks on a VM that is about to go save their
// work, the VM is given up once they have, and its slice gets another. Thread: the loop only.

#include <map>
#include <set>
#include <string>
#include <vector>

#include "control/jobs.h"
#include "control/slices.h"

namespace th::control {

class Notices {
 public:
  Notices(Core& core, Slices& slices, Jobs& jobs) : core_(core), slices_(slices), jobs_(jobs) {}

  /// Asks the provider as often as it allows, and acts on what it has told. What serves stays to the end.
  void step();

 private:
  void ask();
  void take(const cloud::Notice& notice);
  void give_up(const cloud::Notice& notice);

  Core& core_;
  Slices& slices_;
  Jobs& jobs_;
  std::vector<cloud::Notice> notices_;
  std::set<std::string> told_, given_up_;  // ids of notices
  bool asking_ = false;
  int64_t next_ask_ns_ = 0;  // monotonic
};

}  // namespace th::control
