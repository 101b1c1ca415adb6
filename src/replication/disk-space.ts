import { VOLUME_RESERVE_BYTES_MAX, asError, type Clock, type Logger } from '../base/index.ts'
import type { ModelStore } from '../storage/store.ts'

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
      const evictable = store.models().filter(model => !model.pinned && !model.published && !isKept(model.cid)).reduce((sum, model) => sum + model.presentBytes, 0) + spareBytes()
      this.#freeBytes = writable ? Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, Math.min(onVolume, inQuota) + evictable)) : 0
    } catch (error) {
      this.#freeBytes = 0
      logger.debug({ error: asError(error).message }, 'the free space could not be measured')
    } finally {
      this.#measuring = false
    }
  }
}
