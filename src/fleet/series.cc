#include "fleet/series.h"

#include <fmt/format.h>

#include <array>
#include <vector>

#include "base/text.h"

namespace th::fleet {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;
constexpr int64_t kGB = 1'000'000'000;
constexpr int64_t kGbit = 1'000'000'000;

// LOCAL's numbers are nominal: they make quotes, budgets and rack power real on one machine.
// Prices are Linux, pay as you go, East US or the first region that offered the size, divided by the GPUs.
// "unverified" marks what was written down from memory and not read again on the date given.
constexpr std::array<Series, kNumSeries> kCatalogue = {{
    {.name = "LOCAL",
     .accelerator = "a share of this machine's CPU",
     .gpus_per_host = 2,
     .vcpus = 0,
     .ram_bytes = 0,
     .gpu_memory_bytes = 0,
     .gpu_nvlink_bytes_per_s = 0,
     .nvlink_domain_hosts = 1,
     .gpu_infiniband_bit_per_s = 0,
     .microusd_per_gpu_hour = 100'000,
     .gpu_w = 20,
     .host_idle_w = 30,
     .as_of = "2026-11-22",
     .source = "nominal, for one machine"},
    {.name = "ND_A100_v4",
     .accelerator = "NVIDIA A100 SXM4 40 GB",
     .gpus_per_host = 8,
     .vcpus = 96,
     .ram_bytes = 900 * kGiB,
     .gpu_memory_bytes = 40 * kGB,
     .gpu_nvlink_bytes_per_s = 600 * kGB,
     .nvlink_domain_hosts = 1,
     .gpu_infiniband_bit_per_s = 200 * kGbit,
     .microusd_per_gpu_hour = 3'399'625,
     .gpu_w = 400,
     .host_idle_w = 3300,
     .as_of = "2026-11-22",
     .source =
         "learn.microsoft.com ND A100 v4 series (96 cores, 8 x 200 Gb/s); 900 GiB and ND96asr_v4 at "
         "$27.197/h in East US: unverified; A100 datasheet: 400 W, 600 GB/s; DGX A100 datasheet: 6.5 kW "
         "at most, less its 8 GPUs"},
    {.name = "NDm_A100_v4",
     .accelerator = "NVIDIA A100 SXM4 80 GB",
     .gpus_per_host = 8,
     .vcpus = 96,
     .ram_bytes = 1900 * kGiB,
     .gpu_memory_bytes = 80 * kGB,
     .gpu_nvlink_bytes_per_s = 600 * kGB,
     .nvlink_domain_hosts = 1,
     .gpu_infiniband_bit_per_s = 200 * kGbit,
     .microusd_per_gpu_hour = 4'096'250,
     .gpu_w = 400,
     .host_idle_w = 3300,
     .as_of = "2026-11-22",
     .source = "Azure/azurehpc-health-checks ND96amsr_A100_v4 (200 Gb/s a GPU); 1,900 GiB and "
               "ND96amsr_A100_v4 at $32.77/h: unverified; power as ND_A100_v4"},
    {.name = "ND_H100_v5",
     .accelerator = "NVIDIA H100 SXM5 80 GB",
     .gpus_per_host = 8,
     .vcpus = 96,
     .ram_bytes = 1900 * kGiB,
     .gpu_memory_bytes = 80 * kGB,
     .gpu_nvlink_bytes_per_s = 900 * kGB,
     .nvlink_domain_hosts = 1,
     .gpu_infiniband_bit_per_s = 400 * kGbit,
     .microusd_per_gpu_hour = 12'290'000,
     .gpu_w = 700,
     .host_idle_w = 4600,
     .as_of = "2026-11-22",
     .source =
         "glennklockwood.com azure-nd-h100-v5 (96 vCPU of 4th generation Xeon, 1,900 GiB, 8 x 400 Gb/s); "
         "H100 datasheet: 700 W, 900 GB/s; DGX H100: 10.2 kW at most, less its 8 GPUs; "
         "ND96isr_H100_v5 at $98.32/h: unverified"},
    {.name = "ND_H200_v5",
     .accelerator = "NVIDIA H200 SXM5 141 GB",
     .gpus_per_host = 8,
     .vcpus = 96,
     .ram_bytes = 1850 * kGiB,
     .gpu_memory_bytes = 141 * kGB,
     .gpu_nvlink_bytes_per_s = 900 * kGB,
     .nvlink_domain_hosts = 1,
     .gpu_infiniband_bit_per_s = 400 * kGbit,
     .microusd_per_gpu_hour = 10'600'000,
     .gpu_w = 700,
     .host_idle_w = 4600,
     .as_of = "2026-11-22",
     .source = "aspire.dev AKS VM sizes ND96isr_H200_v5 (96 vCPU, 1,850 GB, 8 GPUs); H200 datasheet: 141 GB, "
               "700 W; power of the host as DGX H100; ND96isr_H200_v5 at $84.80/h: unverified"},
    {.name = "NC_A100_v4",
     .accelerator = "NVIDIA A100 PCIe 80 GB",
     .gpus_per_host = 4,
     .vcpus = 96,
     .ram_bytes = 880 * kGiB,
     .gpu_memory_bytes = 80 * kGB,
     .gpu_nvlink_bytes_per_s = 600 * kGB,
     .nvlink_domain_hosts = 1,
     .gpu_infiniband_bit_per_s = 0,
     .microusd_per_gpu_hour = 3'673'000,
     .gpu_w = 300,
     .host_idle_w = 1000,
     .as_of = "2026-11-22",
     .source = "techcommunity.microsoft.com NC A100 v4 (up to 4 A100 80GB PCIe, Milan, no InfiniBand); "
               "NC96ads_A100_v4 with 96 vCPU, 880 GiB, NVLink over bridges between pairs, 300 W a GPU, 1 kW "
               "beside them and $14.692/h: unverified"},
    {.name = "NDR_GB200_v6",
     .accelerator = "NVIDIA GB200 192 GB",
     .gpus_per_host = 4,
     .vcpus = 128,
     .ram_bytes = 900 * kGiB,
     .gpu_memory_bytes = 192 * kGB,
     .gpu_nvlink_bytes_per_s = 1800 * kGB,
     .nvlink_domain_hosts = 18,
     .gpu_infiniband_bit_per_s = 400 * kGbit,
     .microusd_per_gpu_hour = 27'040'000,
     .gpu_w = 1200,
     .host_idle_w = 600,
     .as_of = "2026-11-22",
     .source =
         "learn.microsoft.com ND GB200 v6 series (128 vCPU, 4 GPUs, 4 x 1.8 TB/s NVLink, 18 VMs a rack of "
         "72 GPUs, 4 x 400 Gb/s); windowsforum.com (900 GB, 192 GB); fibermall.com (5,400 W a compute "
         "tray, 1,200 W a GPU); ND128isr_NDR_GB200_v6 at $108.16/h: unverified"},
    {.name = "OPENAI_2020",
     .accelerator = "a GPU of 2020, taken as NVIDIA V100 SXM2 32 GB",
     .gpus_per_host = 8,
     .vcpus = 228,
     .ram_bytes = 0,
     .gpu_memory_bytes = 32 * kGB,
     .gpu_nvlink_bytes_per_s = 300 * kGB,
     .nvlink_domain_hosts = 1,
     .gpu_infiniband_bit_per_s = 50 * kGbit,
     .microusd_per_gpu_hour = 2'754'000,
     .gpu_w = 300,
     .host_idle_w = 1100,
     .as_of = "2026-11-22",
     .source =
         "datacenterdynamics.com, May 2020: 285,000 CPU cores, 10,000 GPUs, 400 Gb/s a GPU server; spread "
         "evenly over 1,250 servers of 8. The GPU is not published: V100, 3.5 kW a server (DGX-1) and "
         "ND40rs_v2 at $22.032/h: unverified"},
}};

}  // namespace

std::span<const Series, kNumSeries> series_catalogue() { return kCatalogue; }

Result<SeriesIndex> find_series(std::string_view name) {
  for (size_t i = 0; i < kCatalogue.size(); ++i) {
    if (name == kCatalogue[i].name) return static_cast<SeriesIndex>(i);
  }
  std::vector<std::string> names;
  for (const Series& series : kCatalogue) names.emplace_back(series.name);
  std::string hint = did_you_mean(name, names);
  if (hint.empty()) hint = "; known: " + join(names, ", ");
  return fail(Code::kNotFound, fmt::format("series '{}' is not in the catalogue{}", name, hint));
}

}  // namespace th::fleet
