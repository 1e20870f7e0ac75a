#pragma once
// What is asked of Azure: names, tags and bodies of the resources that the provider makes.

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "cloud/azure/provider.h"

namespace th::cloud::azure {

inline constexpr const char* kComputeVersion = "2025-04-01";
inline constexpr const char* kSkusVersion = "2021-07-01";
inline constexpr const char* kEventsVersion = "2020-07-01";
inline constexpr const char* kIdentityVersion = "2018-02-01";
inline constexpr const char* kPricesVersion = "2023-01-01-preview";
/// VMs of a scale set with singlePlacementGroup, which InfiniBand needs (learn.microsoft.com, placement
/// groups of scale sets).
inline constexpr size_t kMaxGroupVms = 100;

struct Size {
  const char* series;  // of the catalogue
  const char* name;    // of Azure
  bool infiniband;
};
/// Errors: kUnsatisfiable, with the series that there are.
Result<Size> find_size(std::string_view series);

/// "/subscriptions/…/resourceGroups/…/providers/Microsoft.Compute/BELOW?api-version=…".
std::string compute_url(const AzureProviderOptions& options, std::string_view below);
/// "th-" and 20 hex digits of the cluster and the token, and the number of the group: the same for a retry
/// and after a restart.
std::string set_name(std::string_view cluster, std::string_view client_token, size_t group);
std::string group_name(std::string_view cluster, std::string_view client_token);
/// The secret that all nodes of a set boot with. A node's own token is node_token(secret, instance name): the
/// provider keeps none of them.
std::string set_secret(const AzureProviderOptions& options, std::string_view set);
std::string node_token(std::string_view set_secret, std::string_view instance);

/// Which VMs a scale set holds, kept in its tags: Azure allows 50 of at most 256 characters
/// (learn.microsoft.com, tag resources).
struct Book {
  std::string cluster, client_token;
  std::vector<std::string> vms, hosts;  // in the order of the request
  /// Instance of each VM, "-" once it was removed; none: not settled yet, in ascending order then.
  std::optional<std::vector<std::string>> instances;
};
/// Errors: kInvalidArgument when it does not fit.
Result<std::map<std::string, std::string>> tags_of(const Book& book);
/// None: not a set of ours.
std::optional<Book> book_of(const std::map<std::string, std::string>& tags);

/// Body of PUT virtualMachineScaleSets/{name}.
Json set_body(const AzureProviderOptions& options, const Size& size, const CreateVms& request,
              std::string_view name, const std::map<std::string, std::string>& tags, size_t num_vms);
/// Bodies of PUT capacityReservationGroups/{name} and of .../capacityReservations/{name} below it.
Json reservation_group_body(const AzureProviderOptions& options, const ReserveVms& request);
Result<Json> reservation_body(const AzureProviderOptions& options, const Size& size,
                              const ReserveVms& request, int64_t now_ns);

/// Names, one series, and what a placement group can hold. Errors: kInvalidArgument, kUnsatisfiable.
Status check_request(const CreateVms& request);
/// Errors: kInvalidArgument, naming the option of the `cloud:` section and what it has to be.
Status check_options(const AzureProviderOptions& options);
/// "publisher:offer:sku:version", or a resource id. `what`: for the error.
Status check_image(std::string_view what, const std::string& image);

}  // namespace th::cloud::azure
