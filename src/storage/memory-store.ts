import type { Clock, Logger, Random } from '../base/index.ts'
import { BlockStore } from './block-store.ts'
import type { StoreSettings } from './core.ts'
import { MemoryBytes } from './memory-bytes.ts'
import type { ModelStore } from './store.ts'

export interface MemoryStoreInit {
  clock: Clock
  random: Random
  logger: Logger
  settings: StoreSettings
}

/** Blocks and models in memory, for tests, simulations and nodes that keep nothing. What is held, and no more, takes room. */
export function createMemoryStore ({ clock, logger, settings }: MemoryStoreInit): ModelStore {
  return new BlockStore(new MemoryBytes(), { clock, logger, settings })
}
