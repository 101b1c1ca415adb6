import { asError, type Clock, type Logger } from '../base/index.ts'
import type { ByteStore } from './byte-store.ts'
import type { Lock } from './concurrency.ts'
import type { ModelRecord, Registry } from './records.ts'
import type { Volume } from './volume.ts'

/** Places change file by file, and a model's flags name the places of all its files: of thousands each would write all. */
const SAVE_AFTER_MS = 1_000

export interface StaleFlagsInit { clock: Clock, logger: Logger, bytes: ByteStore, registry: Registry, recording: Lock, volume: Volume }

/**
 * Models whose flags, kept for a lost catalog, name places that are not right any more. They are saved a moment later, all that
 * changed meanwhile at once. A crash before that costs nothing: a rebuilt catalog checks places and hashes what lies there.
 */
export class StaleFlags {
  readonly #init: StaleFlagsInit
  readonly #stale = new Set<ModelRecord>()
  #cancel: (() => void) | undefined
  #saving: Promise<void> = Promise.resolve()
  #stopped = false

  constructor (init: StaleFlagsInit) {
    this.#init = init
  }

  mark (models: Iterable<ModelRecord>): void {
    for (const model of models) this.#stale.add(model)
    this.#schedule()
  }

  /** Never rejects: what cannot be saved is tried again. */
  async save (): Promise<void> {
    this.#cancel?.()
    this.#cancel = undefined
    await (this.#saving = this.#saving.then(async () => { await this.#save() }))
  }

  async stop (): Promise<void> {
    this.#stopped = true
    await this.save()
  }

  #schedule (): void {
    if (this.#stopped || this.#stale.size === 0) return
    this.#cancel ??= this.#init.clock.setTimeout(() => { void this.save() }, SAVE_AFTER_MS)
  }

  async #save (): Promise<void> {
    const { registry, recording, bytes, volume, logger } = this.#init
    for (const model of this.#stale) {
      this.#stale.delete(model)
      try {
        // Not of one that is removed meanwhile: that would leave a file of it behind.
        await recording.run(async () => { if (registry.models.get(model.cid) === model) await bytes.saveFlags(model) })
      } catch (error) {
        this.#stale.add(model)
        volume.note(error)
        logger.warn({ model: model.cid, error: asError(error).message }, 'where the files of a model are could not be saved beside the catalog')
        break
      }
    }
    this.#schedule()
  }
}
