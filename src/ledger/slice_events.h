#pragma once
// Events of what slices and jobs are made of: stacks, data sets, alternatives, bills, VMs that outlive their
// slice (event_types.h has the rules).

#include <cstdint>
#include <string>
#include <vector>

#include "ledger/event_fields.h"

namespace th::ledger {

/// A software suite from here on, as YAML (docs/stacks.md). A version never changes.
struct StackAdded {
  std::string name, version, text;
  TH_EVENT("stack_added") { v("name", e.name), v("version", e.version), v("text", e.text); }
};
/// A folder of tokens from here on. about: its dataset.json (docs/data.md). A version never changes.
struct DataSetAdded {
  std::string name, version, path, about;
  int64_t bytes = 0;
  std::vector<ModelFile> files;
  TH_EVENT("data_set_added") {
    v("name", e.name), v("version", e.version), v("path", e.path), v("about", e.about), v("bytes", e.bytes);
    v("files", e.files);
  }
};
/// What a slice is to be like beside its terms; staged with its slice_held. stack: "train@1". spec: what was
/// asked for, as JSON; empty: it is a job's. attempt: which of the alternatives in it this is, from 0.
/// idle_ns: released when it was without work for so long; 0: never.
struct SliceRequested {
  std::string slice, stack, zone, spec;
  int64_t attempt = 0, idle_ns = 0;
  TH_EVENT("slice_requested") {
    v("slice", e.slice), v("stack", e.stack), v("zone", e.zone), v("spec", e.spec);
    v("attempt", e.attempt), v("idle_ns", e.idle_ns);
  }
};
/// What a slice that failed failed of: an error code ("no_capacity"), why, and what is done about it. Staged
/// with its slice_failed.
struct SliceFault {
  std::string slice, code, reason;
  TH_EVENT("slice_fault") { v("slice", e.slice), v("code", e.code), v("reason", e.reason); }
};
/// What its cloud bills it for, since 1970.
struct VmBilled {
  std::string vm;
  int64_t created_ns = 0, ended_ns = 0;
  TH_EVENT("vm_billed") { v("vm", e.vm), v("created_ns", e.created_ns), v("ended_ns", e.ended_ns); }
};
/// Its slice gave it up, and it stays for another one of the same account.
struct VmKept {
  std::string vm;
  TH_EVENT("vm_kept") { v("vm", e.vm); }
};
/// A VM that was kept is the slice's from here on.
struct VmAdopted {
  std::string vm, slice;
  TH_EVENT("vm_adopted") { v("vm", e.vm), v("slice", e.slice); }
};

}  // namespace th::ledger
