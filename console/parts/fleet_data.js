// The fleet: what never changes of it is asked once, what changes in a few bytes a host.

import { useMemo } from './core.js';
import { useLive } from './live.js';

const kKinds = ['slice_', 'vm_', 'node_', 'host_', 'attempt_', 'job_finished', 'power_', 'reservation_', 'reconnected'];
const kStates = { f: 'free', u: 'used', s: 'starting', x: 'down', d: 'drained', l: 'free' };

function racksOf(map, use) {
  let at = 0;
  return map.racks.map((rack, i) => ({
    ...rack, power_used_w: use.rack_power_w[i],
    hosts: rack.hosts.map((id) => {
      const letter = use.hosts[at], used = parseInt(use.gpus_by_host[at++], 36);
      return { id, series: rack.series, gpus: rack.gpus_per_host, gpus_used: used, state: kStates[letter], lemon: letter === 'l' };
    }),
  }));
}

/** {name, racks, series, simulated, time_ns} as `data`. */
export function useFleet() {
  const map = useLive('/fleet/map');
  const use = useLive(map.data ? '/fleet/use' : null, kKinds, { every_ms: 20000 });
  const data = useMemo(() => {
    if (!map.data || !use.data) return undefined;
    const series = new Map();
    for (const { series: name, hosts, gpus_per_host } of map.data.racks) {
      const of = series.get(name) || { name, gpus: 0, hosts: 0, gpus_per_host };
      of.gpus += hosts.length * gpus_per_host;
      of.hosts += hosts.length;
      series.set(name, of);
    }
    return { name: map.data.name, racks: racksOf(map.data, use.data), series: map.data.series || [...series.values()], simulated: use.data.simulated, time_ns: use.data.time_ns };
  }, [map.data, use.data]);
  return { ...use, data, error: map.error || use.error };
}
