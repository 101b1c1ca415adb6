import { ModelNotFoundError, type Clock, type Emitter, type Logger } from '../base/index.ts'
import type { ByteStore } from './byte-store.ts'
import type { Catalog } from './catalog.ts'
import type { Lock } from './concurrency.ts'
import { diskError } from './disk-errors.ts'
import type { DetailsCache, FileRecord, Registry } from './records.ts'
import type { StaleFlags } from './stale-flags.ts'
import type { Slot, SlotPool } from './slots.ts'
import type { StoreEvents, StoredFile } from './store.ts'
import type { Volume } from './volume.ts'

export interface StoreSettings {
  quota: number | undefined
  directIo: 'auto' | 'on' | 'off'
  slots: number
  /** Other threads will hash what lies in the slots. Shared memory is slower to copy into. */
  sharedSlots?: boolean
  syncBytes: number
  syncIntervalMs: number
}

/** What the parts of a store share. Built once, in store-parts.ts. */
export interface Core {
  readonly settings: StoreSettings
  readonly clock: Clock
  readonly logger: Logger
  readonly events: Emitter<StoreEvents>
  readonly bytes: ByteStore
  readonly catalog: Catalog
  readonly registry: Registry
  readonly details: DetailsCache
  readonly volume: Volume
  /** What is kept beside the catalog and has to be written again. */
  readonly staleFlags: StaleFlags
  /** Held while models and files come and go. Never taken by who holds `recording`. */
  readonly structure: Lock
  /** Held while what is recorded about files changes. */
  readonly recording: Lock
  /** Held by the one who takes two of `workSlots`. */
  readonly copying: Lock
  /** For the store's own copies and checks, so that these never wait for the slots of a load. */
  readonly workSlots: SlotPool
  /** Fires when the store stops: what can be cut short or left to the next start then is. */
  readonly stopping: AbortSignal
}

/** The store's record of a file; throws ModelNotFoundError when it was removed. */
export function recordOf (core: Core, file: StoredFile): FileRecord {
  const record = core.registry.files.get(file.key)
  if (record === undefined) throw new ModelNotFoundError(`the file ${file.key} is not here any more: its model was removed`)
  return record
}

/** How much of `workSlots` there is: two blocks being checked, and one pair being copied. */
export const WORK_SLOTS = 4

export async function withWorkSlot<T> (core: Core, work: (slot: Slot) => Promise<T>): Promise<T> {
  const slot = await new Promise<Slot>(resolve => { core.workSlots.acquire(resolve) })
  try {
    return await work(slot)
  } finally {
    slot.release()
  }
}

/** One pair at a time: two that each hold one slot and wait for another could wait for ever. */
export async function withWorkPair<T> (core: Core, work: (from: Slot, to: Slot) => Promise<T>): Promise<T> {
  return await core.copying.run(async () => await withWorkSlot(core, async from => await withWorkSlot(core, async to => await work(from, to))))
}

/** How many places of blocks are looked at in the catalog, at up to 10 us each, before others get a turn. */
export const LOOKUPS_PER_TURN = 200

/** The rows that removed files left in the catalog. The caller holds `structure`. They say nothing and harm nobody: that they cannot go is no reason to fail. */
export async function sweepCatalog ({ catalog, logger }: Core): Promise<void> {
  try {
    await catalog.sweep()
  } catch (error) {
    logger.warn({ error: diskError(error, 'cannot take them away').message }, 'rows of removed files stay in the catalog until the next are removed, or the next start')
  }
}
