import { asError } from '../base/index.ts'
import type { Core } from './core.ts'
import { diskError } from './disk-errors.ts'
import { sizeOfBlocks, type FileRecord } from './records.ts'

/** `remake`: the whole file is lost and made anew; `wasPlaced`: it was in place until then. */
interface Loss { remake: boolean, wasPlaced: boolean }

/** Recorded blocks that turn out bad or gone, and files that are lost as a whole. */
export class Losses {
  readonly #core: Core
  readonly #linkComplete: (file: FileRecord) => Promise<void>
  /** Losses that could not be made durable: what is recorded about these files is wrong after a restart. */
  readonly #unrecorded = new Map<FileRecord, Loss>()
  #redoing: Promise<void> | undefined

  constructor (core: Core, linkComplete: (file: FileRecord) => Promise<void>) {
    this.#core = core
    this.#linkComplete = linkComplete
    core.events.on('volume:state', ({ writable }) => { if (writable) void this.redo() })
  }

  /**
   * Takes back what was recorded: not served from this moment on, told, then durable. `all`: the file itself cannot be
   * trusted and is made anew, empty. A file in place always goes as a whole: one block that is not what it was means
   * that the user has changed the file; from then on it is an empty file of our own.
   */
  async withdraw (file: FileRecord, blocks: number[] | 'all', reason: string): Promise<void> {
    const remake = blocks === 'all' || file.inPlace
    const gone = (remake ? [...file.present] : blocks).filter(block => file.present.set(block, false))
    if (gone.length === 0 && !(remake && file.size === 0)) return
    // Made anew it has nothing: not what is recorded and about to be shown either, nor what waits to be synced.
    for (const block of remake ? file.recorded : gone) file.recorded.set(block, false)
    const lost = remake ? [...gone, ...file.unsynced] : gone
    file.presentBytes -= sizeOfBlocks(file, gone)
    const wasPlaced = file.inPlace
    file.guard = undefined
    const durable = this.#makeLossDurable(file, { remake, wasPlaced })
    this.#core.logger.warn({ file: file.key, blocks: gone.length, reason }, 'blocks were withdrawn')
    if (lost.length > 0) this.#core.events.emit('blocks:lost', { file, blocks: lost, reason })
    await durable
  }

  async #makeLossDurable (file: FileRecord, { remake, wasPlaced }: Loss): Promise<void> {
    if (remake) {
      file.generation++
      file.unsynced.clear()
    }
    const { generation } = file
    const durable = this.#core.recording.run(async () => {
      if (file.removed || (remake && file.generation !== generation)) return // a whole copy took its place meanwhile
      await this.#recordLoss(file, { remake, wasPlaced })
    })
    if (remake) file.remaking = durable.then(() => undefined, () => undefined)
    try {
      await durable
    } catch (error) {
      const earlier = this.#unrecorded.get(file)
      this.#unrecorded.set(file, { remake: remake || earlier?.remake === true, wasPlaced: wasPlaced || earlier?.wasPlaced === true })
      const failed = diskError(error, `cannot withdraw blocks of ${file.key}`)
      this.#core.volume.note(failed)
      throw failed
    }
  }

  /** Tries again to make durable what was lost while the volume took no writes. Never rejects. */
  async redo (): Promise<void> {
    this.#redoing ??= this.#redo().finally(() => { this.#redoing = undefined })
    await this.#redoing
  }

  async #redo (): Promise<void> {
    const losses = [...this.#unrecorded]
    this.#unrecorded.clear() // what fails again comes back
    for (const [file, loss] of losses) {
      const remake = loss.remake && file.recorded.count === 0 && file.unsynced.size === 0 // else it was made anew after all
      try {
        await this.#makeLossDurable(file, { remake, wasPlaced: loss.wasPlaced })
      } catch (error) {
        this.#core.logger.error({ file: file.key, error: asError(error).message }, 'withdrawn blocks are still recorded')
      }
    }
  }

  async #recordLoss (file: FileRecord, { remake, wasPlaced }: Loss): Promise<void> {
    const { catalog, bytes } = this.#core
    const presence = { id: file.id, key: file.key, present: file.recorded.bytes, presentBytes: file.presentBytes }
    if (wasPlaced) catalog.setGuard(undefined, presence)
    else catalog.setPresence([presence], { durable: true })
    await bytes.reopen(file)
    if (remake) {
      await bytes.create(file)
      await bytes.syncNames()
    }
    if (wasPlaced) for (const model of file.models) await bytes.saveFlags(model)
    if (file.present.full) await this.#linkComplete(file) // an empty file
  }
}
