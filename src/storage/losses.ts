import { asError } from '../base/index.ts'
import type { PlacesChange } from './catalog.ts'
import { LINKS_AT_ONCE, inParallel } from './concurrency.ts'
import type { Core } from './core.ts'
import { diskError } from './disk-errors.ts'
import { GuardBrokenError, PlaceAwayError, checkGuard } from './in-place.ts'
import { sizeOfBlocks, type FileRecord } from './records.ts'
import type { FileGuard } from './store.ts'

/** `remake`: the whole file is lost and made anew; `wasPlaced`: it was in place until then. `generation`: from then on. */
interface Loss { file: FileRecord, remake: boolean, wasPlaced: boolean, generation: number }
/** In memory it has happened; this tells of it. */
interface Taken extends Loss { lost: number[], reason: string }

/** A place of a file that is in place cannot be read. */
export interface LostPlace { file: FileRecord, place: FileGuard, error: GuardBrokenError }

/** Recorded blocks that turn out bad or gone, and files that are lost as a whole, with their place or for now. */
export class Losses {
  readonly #core: Core
  readonly #linkComplete: (file: FileRecord) => Promise<void>
  /** Losses that could not be made durable: what is recorded about these files is wrong after a restart. */
  readonly #unrecorded = new Map<FileRecord, Pick<Loss, 'remake' | 'wasPlaced'>>()
  #redoing: Promise<void> | undefined

  constructor (core: Core, linkComplete: (file: FileRecord) => Promise<void>) {
    this.#core = core
    this.#linkComplete = linkComplete
    core.events.on('volume:state', ({ writable }) => { if (writable) void this.redo() })
  }

  /**
   * Takes back what was recorded: not served from this moment on, told, then durable. `all`: the file itself cannot be
   * trusted and is made anew, empty. A file in place always goes as a whole: one block that is not what it was means
   * that the user has changed the file; that place is forgotten, and the file is an empty one of our own.
   */
  async withdraw (file: FileRecord, blocks: number[] | 'all', reason: string): Promise<void> {
    const { guard } = file
    const taken = this.#take(file, blocks, reason)
    if (taken === undefined) return
    forget(file, guard)
    await this.#tell([taken])
  }

  /** Of files in place that have no other place. One that is only away is kept in mind, and looked for again. */
  async withdrawPlaces (lost: readonly LostPlace[]): Promise<void> {
    const taken: Taken[] = []
    for (const { file, place, error } of lost) {
      const one = file.guard === place ? this.#take(file, 'all', error.message) : undefined // else it is elsewhere by now
      if (one === undefined) continue
      taken.push(one)
      if (error instanceof PlaceAwayError) file.missing.add(place)
      else forget(file, place)
    }
    if (taken.length > 0) await this.#tell(taken)
  }

  /** Another place of the file is read from now on; it is withdrawn when there is none. Says whether it is worth another look. */
  async losePlace ({ file, place, error }: LostPlace): Promise<boolean> {
    for (const other of file.known) {
      if (other === place) continue
      const broken = await checkGuard(other).then(() => undefined, asError)
      if (file.removed || file.guard !== place) return true
      if (broken === undefined) {
        await this.#switch({ file, place, error }, other)
        return true
      }
      if (broken instanceof PlaceAwayError) file.missing.add(other)
      else if (broken instanceof GuardBrokenError) forget(file, other)
    }
    await this.withdrawPlaces([{ file, place, error }])
    return false
  }

  async #switch ({ file, place, error }: LostPlace, other: FileGuard): Promise<void> {
    const { logger, bytes } = this.#core
    file.setPlaces(other, file.known)
    file.generation++ // a read that began with the old place looks again
    if (error instanceof PlaceAwayError) file.missing.add(place)
    else forget(file, place)
    logger.warn({ file: file.key, place: other.path, reason: error.message }, 'a file in place is read from another place')
    await this.savePlaces([file])
    await bytes.handles.forget(place.path)
  }

  /** Records where these files are. Never rejects: should that fail, the next start finds out by itself. */
  async savePlaces (files: readonly FileRecord[]): Promise<void> {
    const { catalog, recording, staleFlags, volume, logger } = this.#core
    try {
      await recording.run(async () => {
        const left = files.filter(({ removed }) => !removed)
        if (left.length > 0) catalog.setPlaces(left.map(placesOf))
        for (const { models } of left) staleFlags.mark(models)
      })
    } catch (error) {
      const failed = diskError(error, 'cannot record where files in place are')
      volume.note(failed)
      logger.warn({ error: failed.message }, 'where files in place are is not recorded')
    }
  }

  /** In memory only, and at once. */
  #take (file: FileRecord, blocks: number[] | 'all', reason: string): Taken | undefined {
    const remake = blocks === 'all' || file.inPlace
    const gone = (remake ? [...file.present] : blocks).filter(block => file.present.set(block, false))
    if (gone.length === 0 && !(remake && file.size === 0)) return undefined
    // Made anew it has nothing: not what is recorded and about to be shown either, nor what waits to be synced.
    for (const block of remake ? file.recorded : gone) file.recorded.set(block, false)
    const lost = remake ? [...gone, ...file.unsynced] : gone
    file.presentBytes -= sizeOfBlocks(file, gone)
    const wasPlaced = file.inPlace
    file.guard = undefined
    if (remake) {
      file.generation++
      file.unsynced.clear()
    }
    return { file, remake, wasPlaced, generation: file.generation, lost, reason }
  }

  async #tell (taken: Taken[]): Promise<void> {
    const durable = this.#makeDurable(taken)
    for (const { file, lost, reason } of taken) {
      this.#core.logger.warn({ file: file.key, blocks: lost.length, reason }, 'blocks were withdrawn')
      if (lost.length > 0) this.#core.events.emit('blocks:lost', { file, blocks: lost, reason })
    }
    await durable
  }

  async #makeDurable (losses: readonly Loss[]): Promise<void> {
    const durable = this.#core.recording.run(async () => {
      // Else a whole copy took its place meanwhile.
      await this.#record(losses.filter(({ file, remake, generation }) => !file.removed && !(remake && file.generation !== generation)))
    })
    for (const { file, remake } of losses) if (remake) file.remaking = durable.then(() => undefined, () => undefined)
    try {
      await durable
    } catch (error) {
      for (const { file, remake, wasPlaced } of losses) {
        const earlier = this.#unrecorded.get(file)
        this.#unrecorded.set(file, { remake: remake || earlier?.remake === true, wasPlaced: wasPlaced || earlier?.wasPlaced === true })
      }
      const failed = diskError(error, `cannot withdraw blocks of ${losses.map(({ file }) => file.key).join(', ')}`)
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
      if (remake) file.generation++
      try {
        await this.#makeDurable([{ file, remake, wasPlaced: loss.wasPlaced, generation: file.generation }])
      } catch (error) {
        this.#core.logger.error({ file: file.key, error: asError(error).message }, 'withdrawn blocks are still recorded')
      }
    }
  }

  async #record (losses: readonly Loss[]): Promise<void> {
    const { catalog, bytes, staleFlags } = this.#core
    const placed = losses.filter(({ wasPlaced }) => wasPlaced).map(({ file }) => file)
    const own = losses.filter(({ wasPlaced }) => !wasPlaced).map(({ file }) => file)
    if (placed.length > 0) catalog.setPlaces(placed.map(placesOf))
    if (own.length > 0) catalog.setPresence(own.map(presenceOf), { durable: true })
    await inParallel(LINKS_AT_ONCE, [...losses], async ({ file, remake }) => {
      await bytes.reopen(file)
      if (remake) await bytes.create(file)
    })
    if (losses.some(({ remake }) => remake)) await bytes.syncNames()
    for (const { models } of placed) staleFlags.mark(models)
    for (const { file } of losses) if (file.present.full) await this.#linkComplete(file) // an empty file
  }
}

function forget (file: FileRecord, place: FileGuard | undefined): void {
  if (place === undefined) return
  file.setPlaces(file.guard, file.known.filter(known => known !== place))
}

function presenceOf ({ id, key, recorded, presentBytes }: FileRecord): { id: number, key: string, present: Uint8Array, presentBytes: number } {
  return { id, key, present: recorded.bytes, presentBytes }
}

function placesOf (file: FileRecord): PlacesChange {
  return { ...presenceOf(file), guard: file.guard, known: file.known }
}
