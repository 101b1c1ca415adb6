import type { Clock, Logger, Random } from '../base/index.ts'
import { BlockStore } from './block-store.ts'
import type { StoreSettings } from './core.ts'
import { DiskBytes } from './disk-bytes.ts'
import type { ModelStore } from './store.ts'

export interface FileStoreInit {
  /** Made when missing. The store keeps to the names in layout.ts; other files may stand beside them. */
  directory: string
  clock: Clock
  random: Random
  logger: Logger
  settings: StoreSettings
}

/** Blocks and models in a directory. */
export function createFileStore ({ directory, clock, random, logger, settings }: FileStoreInit): ModelStore {
  return new BlockStore(new DiskBytes({ directory, directIo: settings.directIo, random, logger }), { clock, logger, settings })
}
