#include "cloud/azure/quotes.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "cloud/azure/requests.h"
#include "http/url.h"

namespace th::cloud::azure {
namespace {

Status check_offered(const Sku* sku, const Size& size, const AzureProviderOptions& options,
                     const QuoteVms& request) {
  if (sku == nullptr || !sku->here) {
    return fail(
        Code::kUnsatisfiable,
        fmt::format("region {} does not offer {} ({}) to subscription {}{}; ask for another series, or "
                    "use another region (cloud.region)",
                    options.region, request.series, size.name, options.subscription,
                    sku == nullptr ? "" : ": " + sku->reason));
  }
  const auto has = [&](const std::vector<std::string>& zones) {
    return std::ranges::count(zones, request.zone) > 0;
  };
  if (!request.zone.empty() && (!has(sku->zones) || has(sku->restricted_zones))) {
    return fail(Code::kUnsatisfiable,
                fmt::format("zone {} of region {} does not offer {} ({}); zones that do: {}", request.zone,
                            options.region, request.series, size.name,
                            sku->zones.empty() ? "none" : join(sku->zones, ", ")));
  }
  return {};
}

/// Of spot VMs all sizes share one quota (learn.microsoft.com, spot quota).
Status check_quota(const std::vector<Usage>& usages, const Sku& sku, const AzureProviderOptions& options,
                   const QuoteVms& request) {
  const std::string family = request.spot ? "lowPriorityCores" : sku.family;
  const auto usage = std::ranges::find(usages, family, &Usage::name);
  const int64_t limit = usage == usages.end() ? 0 : usage->limit,
                used = usage == usages.end() ? 0 : usage->used;
  const int64_t wanted = sku.vcpus * request.num_vms;
  if (used + wanted <= limit) return {};
  return fail(
      Code::kResourceExhausted,
      fmt::format("quota {} of region {}: {} vCPUs in use and {} asked for, {} allowed; ask for fewer VMs, "
                  "or ask Microsoft for more quota",
                  family, options.region, used, wanted, limit));
}

Result<int64_t> price_of(const std::vector<Price>& prices, const Size& size,
                         const AzureProviderOptions& options, bool spot) {
  for (const Price& price : prices) {
    const bool is_spot = price.meter.ends_with(" Spot");
    const bool other =
        price.meter.ends_with(" Low Priority") || price.product.find("Windows") != price.product.npos;
    if (!other && is_spot == spot) return price.microusd_per_hour;
  }
  return fail(Code::kUnsatisfiable,
              fmt::format("Azure has no {}price of {} in {}; ask for another series or region",
                          spot ? "spot " : "", size.name, options.region));
}

}  // namespace

Result<Quote> quote_vms(Arm& arm, const AzureProviderOptions& options, const QuoteVms& request,
                        int64_t deadline_ns) {
  TH_TRY(const Size size, find_size(request.series));
  if (request.num_vms < 1) return fail(Code::kInvalidArgument, "a quote is for one VM or more");
  const std::string compute =
      fmt::format("/subscriptions/{}/providers/Microsoft.Compute/", options.subscription);
  Ask ask{"listing the VM sizes of " + options.region, "GET",
          fmt::format("{}skus?api-version={}&$filter={}", compute, kSkusVersion,
                      http::percent_encode(fmt::format("location eq '{}'", options.region)))};
  TH_TRY(const auto skus,
         arm.list(
             ask, [&](std::string_view body) { return read_skus(body, options.region); }, deadline_ns));
  const auto sku = std::ranges::find(skus, size.name, &Sku::name);
  TH_RETURN_IF_ERROR(check_offered(sku == skus.end() ? nullptr : &*sku, size, options, request));

  ask = {"listing the quotas of " + options.region, "GET",
         fmt::format("{}locations/{}/usages?api-version={}", compute, options.region, kComputeVersion)};
  TH_TRY(const auto usages, arm.list(ask, read_usages, deadline_ns));
  TH_RETURN_IF_ERROR(check_quota(usages, *sku, options, request));

  const std::string filter = fmt::format(
      "serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armRegionName eq '{}' and "
      "armSkuName eq "
      "'{}'",
      options.region, size.name);
  ask = {"asking for prices", "GET",
         fmt::format("{}/api/retail/prices?api-version={}&$filter={}", options.prices_url, kPricesVersion,
                     http::percent_encode(filter))};
  TH_TRY(const auto prices, arm.list(ask, read_prices, deadline_ns, true));
  TH_TRY(const int64_t price, price_of(prices, size, options, request.spot));
  return Quote{price, request.zone.empty() ? options.region
                                           : fmt::format("{}, zone {}", options.region, request.zone)};
}

}  // namespace th::cloud::azure
