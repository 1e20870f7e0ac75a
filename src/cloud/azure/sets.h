#pragma once
// A scale set of ours as it is now, and the states of its VMs. Values only.

#include <string>
#include <string_view>
#include <vector>

#include "cloud/azure/answers.h"
#include "cloud/azure/requests.h"

namespace th::cloud::azure {

struct SetView {
  ScaleSet set;
  Book book;
  std::vector<Instance> instances;  // ascending by id, see sort_instances
};
void sort_instances(std::vector<Instance>& instances);

/// Id of the instance that VM `i` of the book is: "-" when it was removed, "" while there is none.
std::string instance_of(const SetView& view, size_t i);
/// Instances that no VM of the book is: made by a repeated request. Each is listed under its own name.
std::vector<const Instance*> strays(const SetView& view);
/// One a VM that was not removed, and one a stray; when there is neither, one under the name of the set.
std::vector<VmState> states_of(const SetView& view, const AzureProviderOptions& options);
/// The book with every VM's instance written down.
Book with_instances(const SetView& view);
/// Nothing of it is left to pay for or to tell.
bool is_spent(const SetView& view);

}  // namespace th::cloud::azure
