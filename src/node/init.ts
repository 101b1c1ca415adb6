import type { AbortOptions, Clock, Logger, Random } from '../base/index.ts'
import type { LinkLimiter } from '../discovery/link-limiter.ts'
import type { ContentRouter } from '../discovery/router.ts'
import type { ModelStore } from '../storage/store.ts'
import type { PartialSettings } from './settings.ts'

export type { PartialSettings } from './settings.ts'

/** Everything a node touches can be given; what is not given is the real thing. `signal` ends the start alone, not a node that runs. */
export interface NodeInit extends AbortOptions {
  /** Where everything lives. Without it, the node keeps all in memory. */
  dataDirectory?: string
  /** 32 bytes. Without it: DIR/swarm.key, made at first start; for a memory node a fresh one. */
  swarmKey?: Uint8Array
  settings?: PartialSettings
  /** `memory` uses libp2p's in-process transport, listening on /memory/<something>. Default `tcp`. */
  transport?: 'tcp' | 'memory'
  clock?: Clock
  random?: Random
  logger?: Logger
  store?: ModelStore
  router?: ContentRouter
  /** Caps what goes over the wire, for tests and benches. */
  linkLimiter?: LinkLimiter
}
