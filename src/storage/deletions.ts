import { LINKS_AT_ONCE, inParallel } from './concurrency.ts'
import type { Core } from './core.ts'
import { diskError } from './disk-errors.ts'
import type { FileRecord, ModelRecord } from './records.ts'

/** What goes together, from when it is recorded as gone until its bytes are. */
interface Deletion { readonly names: ReadonlySet<string>, readonly ended: Promise<void> }

/**
 * The bytes of what is recorded as gone: deleted while others add and remove, because thousands of files, or a few huge ones, take their time.
 * What is cut short by the end of the store or of the process is a leftover.
 */
export class Deletions {
  readonly #core: Core
  readonly #running = new Set<Deletion>()

  constructor (core: Core) {
    this.#core = core
  }

  /** Ends when it is done; never rejects. The caller holds `structure`. */
  async start (models: readonly ModelRecord[], files: readonly FileRecord[]): Promise<void> {
    const own = files.filter(({ inPlace }) => !inPlace)
    const names = new Set([...models.map(({ cid }) => cid), ...own.map(({ key }) => key)])
    const deletion = { names, ended: this.#delete(models, own) }
    this.#running.add(deletion)
    await deletion.ended
    this.#running.delete(deletion)
  }

  /** Until nothing that is deleted has one of these names: whoever makes a model or a file anew waits for that. */
  async without (names: readonly string[]): Promise<void> {
    for (const { names: going, ended } of this.#running) if (names.some(name => going.has(name))) await ended
  }

  /** Until the room of all that goes now is there. Says whether anything went. */
  async settled (): Promise<boolean> {
    const running = [...this.#running]
    await Promise.all(running.map(async ({ ended }) => { await ended }))
    return running.length > 0
  }

  async #delete (models: readonly ModelRecord[], files: readonly FileRecord[]): Promise<void> {
    const { stopping, logger } = this.#core
    try {
      await deleteAll(this.#core, models, files, () => stopping.aborted)
    } catch (error) {
      // Recorded as gone, so they are: what is left of them is a leftover for the next gc.
      logger.warn({ error: diskError(error, 'cannot delete').message }, 'parts of a removed model stay behind until the next gc')
    }
  }
}

/** Names first: they hold the bytes too. */
export async function deleteAll ({ bytes }: Core, models: readonly ModelRecord[], files: readonly FileRecord[], isCut = (): boolean => false): Promise<void> {
  await inParallel(LINKS_AT_ONCE, [...models], async model => { if (!isCut()) await bytes.removeModel(model) })
  await inParallel(LINKS_AT_ONCE, [...files], async file => { if (!isCut()) await bytes.remove(file) })
}
