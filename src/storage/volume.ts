import { StoreReadOnlyError, asError, type Clock, type Emitter, type Logger } from '../base/index.ts'
import { volumeAtFault } from './disk-errors.ts'
import type { StoreEvents } from './store.ts'

/** How often a volume that failed is tried again: soon after someone made room, and no load while it stays full. */
const PROBE_INTERVAL_MS = 5_000

export interface VolumeInit {
  clock: Clock
  events: Emitter<StoreEvents>
  logger: Logger
  /** Writes and syncs something small; rejects while the volume cannot take writes. */
  probe: () => Promise<void>
}

/**
 * Whether the volume takes writes. A full or failing disk turns it read-only: writes are refused at once, reads go on,
 * and a probe now and then finds out when the cause is gone.
 */
export class Volume {
  readonly #init: VolumeInit
  #error: Error | undefined
  #cancel: () => void = () => undefined
  #probing: Promise<void> | undefined
  #stopped = false

  constructor (init: VolumeInit) {
    this.#init = init
  }

  get writable (): boolean { return this.#error === undefined }
  get error (): Error | undefined { return this.#error }

  /** Throws StoreReadOnlyError while it is not writable. */
  check (): void {
    if (this.#error === undefined) return
    throw new StoreReadOnlyError(`the storage is read-only since: ${this.#error.message}. It is tried again every few seconds`, { cause: this.#error })
  }

  /** Takes note of what a write, sync or record threw, and goes read-only when that is the volume's fault. */
  note (error: unknown): void {
    if (!volumeAtFault(error) || this.#stopped) return
    const first = this.#error === undefined
    this.#error = asError(error)
    if (!first) return
    this.#init.logger.error({ error: this.#error.message }, 'the storage went read-only')
    this.#init.events.emit('volume:state', { writable: false, error: this.#error })
    this.#schedule()
  }

  async stop (): Promise<void> {
    this.#stopped = true
    this.#cancel()
    await this.#probing
  }

  #schedule (): void {
    if (this.#stopped) return
    this.#cancel = this.#init.clock.setTimeout(() => { this.#probing = this.#probe().finally(() => { this.#probing = undefined }) }, PROBE_INTERVAL_MS)
  }

  async #probe (): Promise<void> {
    try {
      await this.#init.probe()
    } catch (error) {
      this.#error = asError(error)
      this.#schedule()
      return
    }
    if (this.#stopped) return
    this.#error = undefined
    this.#init.logger.info({}, 'the storage is writable again')
    this.#init.events.emit('volume:state', { writable: true })
  }
}
