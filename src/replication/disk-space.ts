import { VOLUME_RESERVE_BYTES_MAX, asError, type Clock, type Logger } from '../base/index.ts'
import type { ModelStore, StoredFile } from '../storage/store.ts'

const REFRESH_MS = 5_000

/** How many bytes more the disk and the quota would take, counting what would be evicted for them. Asked often, measured sometimes. */
export class DiskSpace {
  readonly #components: { store: ModelStore, clock: Clock, logger: Logger, isKept: (cid: string) => boolean, spareBytes: () => number }
  #freeBytes = 0
  #at = -Infinity
  #measuring = false

  constructor (components: { store: ModelStore, clock: Clock, logger: Logger, isKept: (cid: string) => boolean, spareBytes: () => number }) {
    this.#components = components
  }

  get freeBytes (): number { return this.#freeBytes }

  refreshSometimes (now: number): void {
    if (now - this.#at >= REFRESH_MS) void this.refresh()
  }

  async refresh (): Promise<void> {
    if (this.#measuring) return
    this.#measuring = true
    const { store, clock, logger, isKept, spareBytes } = this.#components
    this.#at = clock.monotonic()
    try {
      const { volumeFreeBytes, quotaBytes, heldBytes, writable } = await store.status()
      const onVolume = volumeFreeBytes === undefined ? Number.MAX_SAFE_INTEGER : volumeFreeBytes - VOLUME_RESERVE_BYTES_MAX
      const inQuota = quotaBytes === undefined ? Number.MAX_SAFE_INTEGER : quotaBytes - heldBytes
      const evictable = evictableBytes(store, isKept) + spareBytes()
      this.#freeBytes = writable ? Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, Math.min(onVolume, inQuota) + evictable)) : 0
    } catch (error) {
      this.#freeBytes = 0
      logger.debug({ error: asError(error).message }, 'the free space could not be measured')
    } finally {
      this.#measuring = false
    }
  }
}

/** Of files that stand in no model that stays: evicting the others frees nothing. */
function evictableBytes (store: ModelStore, isKept: (cid: string) => boolean): number {
  const staying = new Set<StoredFile>()
  const going = new Set<StoredFile>()
  for (const model of store.models()) {
    const stays = model.pinned || model.published || isKept(model.cid) || store.isHeld(model.cid)
    for (const file of model.files) (stays ? staying : going).add(file)
  }
  let bytes = 0
  for (const file of going) if (!file.inPlace && !staying.has(file)) bytes += file.presentBytes
  return bytes
}
