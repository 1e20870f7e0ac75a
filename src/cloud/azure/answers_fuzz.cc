// Whatever Azure, or somebody in its place, answers: every reader ends with values or an error, and what it
// hands on is bounded by what it read.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "cloud/azure/answers.h"
#include "cloud/azure/requests.h"
#include "cloud/azure/sets.h"

using namespace th::cloud::azure;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto error = error_of_fault(static_cast<int>(size % 600), read_fault(body), "fuzzing");
  if (error.message.size() > body.size() + 1000) std::abort();
  (void)read_groups(body), (void)read_operation(body), (void)read_usages(body), (void)read_token(body);
  (void)read_events(body), (void)read_skus(body, "eastus");
  if (const auto prices = read_prices(body)) {
    for (const Price& price : prices->values) {
      if (price.microusd_per_hour < 0) std::abort();
    }
  }
  auto sets = read_sets(body);
  auto instances = read_instances(body);
  if (!sets || sets->values.empty()) return 0;
  for (const ScaleSet& set : sets->values) {
    auto book = book_of(set.tags);
    if (!book) continue;
    SetView view{set, *book, {}};
    if (instances) view.instances = instances->values;
    sort_instances(view.instances);
    if (states_of(view, {}).size() > book->vms.size() + view.instances.size()) std::abort();
    view.book = with_instances(view);
    (void)is_spent(view);
  }
  return 0;
}
