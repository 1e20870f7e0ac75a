#include "cloud/azure/requests.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <nlohmann/json.hpp>
#include <set>

#include "base/base64.h"
#include "base/text.h"
#include "base/units.h"
#include "cloud/check_names.h"
#include "http/url.h"

namespace th::cloud::azure {
namespace {

// learn.microsoft.com, sizes of the ND and NC series; NC has no InfiniBand.
constexpr std::array<Size, 6> kSizes = {{
    {"ND_A100_v4", "Standard_ND96asr_v4", true},
    {"NDm_A100_v4", "Standard_ND96amsr_A100_v4", true},
    {"ND_H100_v5", "Standard_ND96isr_H100_v5", true},
    {"ND_H200_v5", "Standard_ND96isr_H200_v5", true},
    {"NDR_GB200_v6", "Standard_ND128isr_NDR_GB200_v6", true},
    {"NC_A100_v4", "Standard_NC96ads_A100_v4", false},
}};

constexpr size_t kMaxTagChars = 256;
constexpr size_t kMaxTags = 50;
constexpr const char *kCluster = "th-cluster", *kToken = "th-token", *kVms = "th-vms-", *kIds = "th-ids-";

/// Words joined by spaces into as few tags as they fit in.
void pack(std::map<std::string, std::string>& tags, const char* prefix,
          const std::vector<std::string>& words) {
  size_t tag = 0;
  std::string text;
  auto put = [&] { tags[fmt::format("{}{:02}", prefix, tag++)] = text; };
  for (const std::string& word : words) {
    if (!text.empty() && text.size() + 1 + word.size() > kMaxTagChars) {
      put();
      text.clear();
    }
    text += (text.empty() ? "" : " ") + word;
  }
  put();
}

std::vector<std::string> unpack(const std::map<std::string, std::string>& tags, std::string_view prefix) {
  std::vector<std::string> words;
  for (const auto& [name, text] : tags) {  // in the order of their numbers
    if (!name.starts_with(prefix)) continue;
    for (std::string& word : split(text, ' ')) {
      if (!word.empty()) words.push_back(std::move(word));
    }
  }
  return words;
}

std::string digest(std::string_view cluster, std::string_view token) {
  return sha256_hex(fmt::format("{}\n{}", cluster, token)).substr(0, 20);
}

/// What cloud-init writes at the first boot, for th-node --azure. The instance adds its own name, which the
/// metadata service tells. All VMs of a set are alike.
std::string custom_data(const AzureProviderOptions& options, const VmSpec& vm, std::string_view set) {
  Json config = {{"controller", options.controller_url},
                 {"set_secret", set_secret(options, set)},
                 {"run_as", options.admin_user},
                 {"gpus", vm.gpus},
                 {"cpus", vm.cpus},
                 {"memory_bytes", vm.memory_bytes},
                 {"disk_free_bytes", vm.disk_free_bytes}};
  if (!options.authority_pem.empty()) config["authority"] = options.authority_pem;
  return to_base64(
      "#cloud-config\nwrite_files:\n- path: /etc/thunderhead/azure.json\n  permissions: '0600'\n  content: "
      "'" +
      dump_json(config) + "'\n");
}

Json image_reference(const std::string& image) {
  if (image.starts_with('/')) return {{"id", image}};
  const auto parts = split(image, ':');
  return {{"publisher", parts[0]}, {"offer", parts[1]}, {"sku", parts[2]}, {"version", parts[3]}};
}

Json network_profile(const AzureProviderOptions& options, std::string_view name) {
  const Json ip = {{"name", name}, {"properties", {{"subnet", {{"id", options.subnet}}}}}};
  const Json card = {{"name", name},
                     {"properties", {{"primary", true}, {"ipConfigurations", Json::array({ip})}}}};
  return {{"networkInterfaceConfigurations", Json::array({card})}};
}

std::string date_of(int64_t unix_ns) {
  const std::time_t seconds = unix_ns / kSecond;
  return fmt::format("{:%Y-%m-%d}", fmt::gmtime(seconds));
}

Status check_endpoint(const char* option, const std::string& url) {
  TH_TRY(const auto parsed, http::parse_url(url));
  const bool local = parsed.host == "127.0.0.1" || parsed.host == "::1" || parsed.host == "localhost" ||
                     parsed.host == "169.254.169.254";
  if (parsed.target != "/" || url.ends_with('/') || (!parsed.tls && !local)) {
    return fail(Code::kInvalidArgument,
                fmt::format("cloud.{}: '{}': want https://HOST, without a path; http only for this machine",
                            option, url));
  }
  return {};
}

}  // namespace

Result<Size> find_size(std::string_view series) {
  std::vector<std::string> names;
  for (const Size& size : kSizes) {
    if (size.series == series) return size;
    names.emplace_back(size.series);
  }
  return fail(Code::kUnsatisfiable, fmt::format("Azure has no series {}{}; ask for one of {}", series,
                                                did_you_mean(series, names), join(names, ", ")));
}

std::string compute_url(const AzureProviderOptions& options, std::string_view below) {
  return fmt::format("/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Compute/{}?api-version={}",
                     options.subscription, options.resource_group, below, kComputeVersion);
}

std::string set_name(std::string_view cluster, std::string_view client_token, size_t group) {
  return fmt::format("th-{}-{}", digest(cluster, client_token), group);
}

std::string group_name(std::string_view cluster, std::string_view client_token) {
  return fmt::format("th-{}-block", digest(cluster, client_token));
}

std::string set_secret(const AzureProviderOptions& options, std::string_view set) {
  return sha256_hex(options.node_secret + sha256_hex(fmt::format("{}{}", options.node_secret, set)));
}

std::string node_token(std::string_view set_secret, std::string_view instance) {
  return sha256_hex(fmt::format("{}\n{}", set_secret, instance));
}

Result<std::map<std::string, std::string>> tags_of(const Book& book) {
  std::map<std::string, std::string> tags = {{kCluster, book.cluster}, {kToken, book.client_token}};
  std::vector<std::string> words;
  for (size_t i = 0; i < book.vms.size(); ++i) words.push_back(book.vms[i] + "@" + book.hosts[i]);
  pack(tags, kVms, words);
  if (book.instances) pack(tags, kIds, *book.instances);
  // Room for the instances, which come later: "65535 " at most.
  const size_t later = book.instances ? 0 : book.vms.size() * 6 / kMaxTagChars + 1;
  if (tags.size() + later > kMaxTags || book.client_token.size() > kMaxTagChars) {
    return fail(Code::kInvalidArgument,
                fmt::format("the names of {} VMs and their hosts do not fit into the {} tags of a scale set; "
                            "use shorter names",
                            book.vms.size(), kMaxTags));
  }
  return tags;
}

std::optional<Book> book_of(const std::map<std::string, std::string>& tags) {
  if (!tags.count(kCluster) || !tags.count(kToken)) return std::nullopt;
  Book book{tags.at(kCluster), tags.at(kToken), {}, {}, {}};
  for (const std::string& word : unpack(tags, kVms)) {
    const size_t at = word.find('@');
    book.vms.push_back(word.substr(0, at));
    book.hosts.push_back(at == word.npos ? "" : word.substr(at + 1));
  }
  auto instances = unpack(tags, kIds);
  if (!instances.empty() && instances.size() == book.vms.size()) book.instances = std::move(instances);
  return book;
}

Json set_body(const AzureProviderOptions& options, const Size& size, const CreateVms& request,
              std::string_view name, const std::map<std::string, std::string>& tags, size_t num_vms) {
  const Json keys = Json::array({{{"path", "/home/" + options.admin_user + "/.ssh/authorized_keys"},
                                  {"keyData", options.ssh_public_key}}});
  Json profile = {
      {"storageProfile",
       {{"imageReference", image_reference(request.image.empty() ? options.image : request.image)},
        {"osDisk",
         {{"createOption", "FromImage"}, {"managedDisk", {{"storageAccountType", "Premium_LRS"}}}}}}},
      {"osProfile",
       {{"computerNamePrefix", name},
        {"adminUsername", options.admin_user},
        {"linuxConfiguration", {{"disablePasswordAuthentication", true}, {"ssh", {{"publicKeys", keys}}}}},
        {"customData", custom_data(options, request.vms[0], name)}}},
      {"networkProfile", network_profile(options, name)},
  };
  if (request.spot) {
    // Deallocated and not deleted, so that its record stays until remove().
    profile["priority"] = "Spot";
    profile["evictionPolicy"] = "Deallocate";
    profile["billingProfile"] = {{"maxPrice", -1}};
  }
  if (!request.reservation.empty()) {
    const std::string group = fmt::format(
        "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Compute/capacityReservationGroups/{}",
        options.subscription, options.resource_group, request.reservation);
    profile["capacityReservation"] = {{"capacityReservationGroup", {{"id", group}}}};
  }
  Json body = {{"location", options.region},
               {"tags", tags},
               {"sku", {{"name", size.name}, {"tier", "Standard"}, {"capacity", num_vms}}},
               {"properties",
                {{"orchestrationMode", "Uniform"},
                 {"singlePlacementGroup", true},
                 {"overprovision", false},
                 {"upgradePolicy", {{"mode", "Manual"}}},
                 {"virtualMachineProfile", profile}}}};
  if (!request.zone.empty()) body["zones"] = Json::array({request.zone});
  return body;
}

Json reservation_group_body(const AzureProviderOptions& options, const ReserveVms& request) {
  Json body = {{"location", options.region},
               {"tags", {{kCluster, options.cluster}, {kToken, request.client_token}}},
               {"properties", {{"reservationType", "Block"}}}};
  if (!request.zone.empty()) body["zones"] = Json::array({request.zone});
  return body;
}

/// Start today or within 56 days; 1 to 14 whole days, or 3 to 26 whole weeks (ScheduleProfile of the API).
Result<Json> reservation_body(const AzureProviderOptions& options, const Size& size,
                              const ReserveVms& request, int64_t now_ns) {
  const int64_t first = request.start_ns / kDay, days = request.end_ns / kDay - first;
  const bool weeks = days % 7 == 0 && days >= 21 && days <= 182;
  if ((days < 1 || days > 14) && !weeks) {
    return fail(Code::kInvalidArgument,
                fmt::format("a block of {} days: Azure reserves 1 to 14 whole days, or 3 to "
                            "26 whole weeks; change start or end",
                            days));
  }
  if (first < now_ns / kDay || first > now_ns / kDay + 56) {
    return fail(Code::kInvalidArgument,
                fmt::format("a block from {}: Azure reserves from today to 56 days ahead",
                            date_of(request.start_ns)));
  }
  Json body = {
      {"location", options.region},
      {"tags", {{kCluster, options.cluster}, {kToken, request.client_token}}},
      {"sku", {{"name", size.name}, {"capacity", request.num_vms}}},
      {"properties",
       {{"scheduleProfile", {{"start", date_of(request.start_ns)}, {"end", date_of(request.end_ns)}}}}}};
  if (!request.zone.empty()) body["zones"] = Json::array({request.zone});
  return body;
}

Status check_image(std::string_view what, const std::string& image) {
  if (image.starts_with('/') || split(image, ':').size() == 4) return {};
  return fail(Code::kInvalidArgument,
              fmt::format("{}: '{}': want publisher:offer:sku:version, or a resource id that "
                          "begins with /",
                          what, image));
}

Status check_options(const AzureProviderOptions& options) {
  const std::pair<const char*, const std::string*> wanted[] = {{"subscription", &options.subscription},
                                                               {"resource_group", &options.resource_group},
                                                               {"region", &options.region},
                                                               {"cluster", &options.cluster},
                                                               {"subnet", &options.subnet},
                                                               {"image", &options.image},
                                                               {"ssh_public_key", &options.ssh_public_key},
                                                               {"controller_url", &options.controller_url}};
  for (const auto& [name, value] : wanted) {
    if (value->empty())
      return fail(Code::kInvalidArgument, fmt::format("cloud.{}: is missing; azure needs it", name));
  }
  for (const std::string* part : {&options.subscription, &options.resource_group, &options.region}) {
    TH_RETURN_IF_ERROR(check_name(*part, "subscription, resource group or region"));
  }
  TH_RETURN_IF_ERROR(check_name(options.cluster, "cluster"));
  TH_RETURN_IF_ERROR(check_name(options.admin_user, "admin_user"));
  if (!options.client_secret.empty() && (options.tenant.empty() || options.client_id.empty())) {
    return fail(Code::kInvalidArgument,
                "cloud.tenant, cloud.client_id: a client secret needs both; leave the secret out to use the "
                "machine's managed identity");
  }
  TH_RETURN_IF_ERROR(check_image("cloud.image", options.image));
  if (!options.subnet.starts_with('/'))
    return fail(Code::kInvalidArgument,
                fmt::format("cloud.subnet: '{}': want the resource id of a subnet", options.subnet));
  TH_RETURN_IF_ERROR(http::parse_url(options.controller_url));
  if (options.controller_url.find_first_of("'\"\\") != std::string::npos)
    return fail(Code::kInvalidArgument, "cloud.controller_url: quotes and backslashes are not allowed");
  if (options.node_secret.size() < 32)
    return fail(Code::kInvalidArgument, "cloud: the secret of the nodes is shorter than 32 characters");
  TH_RETURN_IF_ERROR(check_endpoint("arm_url", options.arm_url));
  TH_RETURN_IF_ERROR(check_endpoint("login_url", options.login_url));
  TH_RETURN_IF_ERROR(check_endpoint("prices_url", options.prices_url));
  return check_endpoint("metadata_url", options.metadata_url);
}

Status check_request(const CreateVms& request) {
  if (!request.image.empty()) TH_RETURN_IF_ERROR(check_image("the stack's image for azure", request.image));
  TH_RETURN_IF_ERROR(check_names(request));
  for (const VmSpec& spec : request.vms) {
    if (!spec.host.empty()) TH_RETURN_IF_ERROR(check_name(spec.host, "host"));
    if (spec.series != request.vms[0].series)
      return fail(Code::kInvalidArgument, "a request for VMs of two series; ask for each by itself");
  }
  TH_TRY(const Size size, find_size(request.vms[0].series));
  if (request.one_fabric && !size.infiniband)
    return fail(Code::kUnsatisfiable,
                fmt::format("series {} has no InfiniBand; ask for a series of ND, or not for one fabric",
                            size.series));
  if (request.one_fabric && request.vms.size() > kMaxGroupVms) {
    return fail(
        Code::kUnsatisfiable,
        fmt::format("{} VMs on one InfiniBand fabric: a placement group of Azure holds at most {}; ask for "
                    "fewer, or not for one fabric",
                    request.vms.size(), kMaxGroupVms));
  }
  return {};
}

}  // namespace th::cloud::azure
