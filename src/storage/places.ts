import { asError, throwIfAborted } from '../base/index.ts'
import type { Blocks } from './blocks.ts'
import { LINKS_AT_ONCE, inParallel } from './concurrency.ts'
import type { Core } from './core.ts'
import { diskError } from './disk-errors.ts'
import { GuardBrokenError, PlaceAwayError, checkGuard, placesWith } from './in-place.ts'
import type { LostPlace } from './losses.ts'
import type { FileRecord } from './records.ts'
import type { FileGuard } from './store.ts'

/** Between two looks for files that are away: a mount that comes back is served soon, and a look costs some microseconds a file. */
const LOOK_AGAIN_MS = 60_000
/** Files taken back or withdrawn in one go: while it lasts nobody else's blocks are recorded. */
const FILES_PER_GROUP = 64

/** A file that is away, and a place of it that is there. */
export interface FoundPlace { file: FileRecord, place: FileGuard }

/**
 * Where files in place are. What is away, with its mount or under another name for a while, is looked for again: at each start, when
 * its model is opened or verified, and now and then as long as something is away.
 */
export class Places {
  readonly #core: Core
  readonly #blocks: Blocks
  readonly #stopping = new AbortController()
  #cancel: (() => void) | undefined
  #looking: Promise<void> | undefined

  constructor (core: Core, blocks: Blocks) {
    this.#core = core
    this.#blocks = blocks
    core.events.on('blocks:lost', ({ file }) => { if (file.away !== undefined) this.watch() })
  }

  /** Looks again in a while, for as long as something is away. */
  watch (): void {
    if (this.#stopping.signal.aborted || this.#cancel !== undefined || !this.#away().next().value) return
    this.#cancel = this.#core.clock.setTimeout(() => {
      this.#looking = this.look(this.#away(), this.#stopping.signal).catch(error => {
        if (!this.#stopping.signal.aborted) this.#core.logger.warn({ error: asError(error).message }, 'files in place that are away cannot be looked for')
      }).then(() => {
        this.#cancel = undefined
        this.watch()
      })
    }, LOOK_AGAIN_MS)
  }

  async stop (reason: Error): Promise<void> {
    this.#stopping.abort(reason)
    this.#cancel?.()
    await this.#looking
  }

  /** Of those that are away only. */
  async takeBack (files: Iterable<FileRecord>, signal: AbortSignal): Promise<void> {
    await this.look([...files].filter(({ away }) => away !== undefined), signal)
  }

  * #away (): Generator<FileRecord> {
    for (const file of this.#core.registry.files.values()) if (file.away !== undefined) yield file
  }

  /**
   * Finds out what has become of the places of these files. Takes back what is there again, and withdraws what is not there any more.
   * One that cannot be looked at, on a failing disk or a dead mount, stays as it is. The caller holds no lock.
   */
  async look (files: Iterable<FileRecord>, signal: AbortSignal): Promise<void> {
    const found: FoundPlace[] = []
    const lost: LostPlace[] = []
    const changed: FileRecord[] = []
    await inParallel(LINKS_AT_ONCE, [...files].filter(({ known }) => known.length > 0), async file => {
      throwIfAborted(signal)
      const { guard } = file
      const { there, broken, forgotten } = await this.#lookAt(file)
      if (file.removed || file.guard !== guard) return
      const error = guard === undefined ? undefined : broken.get(guard)
      if (guard !== undefined && error !== undefined) {
        if (there.length > 0) await this.#recorded(signal, async () => { await this.#blocks.losePlace({ file, place: guard, error }) })
        else lost.push({ file, place: guard, error })
      } else if (guard === undefined && there[0] !== undefined && isFree(file)) {
        found.push({ file, place: there[0] })
      } else if (forgotten) {
        changed.push(file)
      }
    })
    const { structure, recording } = this.#core
    for (const few of groupsOf(lost)) await this.#recorded(signal, async () => { await this.#blocks.withdrawPlaces(few) })
    for (const few of groupsOf(found)) await this.#recorded(signal, async () => { await structure.run(async () => await recording.run(async () => { await this.take(few) })) })
    for (const few of groupsOf(changed)) await this.#blocks.savePlaces(few)
    this.watch()
  }

  /** A volume that takes no writes is no reason not to open or verify a model: what is withdrawn is so, and recorded later; what is away stays away. */
  async #recorded (signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    throwIfAborted(signal)
    try {
      await work()
    } catch (error) {
      const failed = diskError(error, 'cannot record where files in place are')
      this.#core.volume.note(failed)
      this.#core.logger.error({ error: failed.message }, 'what became of files in place is not recorded yet')
    }
  }

  /** Forgets places that hold another file by now, but for the one that is read. */
  async #lookAt (file: FileRecord): Promise<{ there: FileGuard[], broken: Map<FileGuard, GuardBrokenError>, forgotten: boolean }> {
    const there: FileGuard[] = []
    const broken = new Map<FileGuard, GuardBrokenError>()
    let forgotten = false
    for (const place of file.known) {
      try {
        await checkGuard(place)
        there.push(place)
        file.missing.delete(place)
      } catch (error) {
        if (!(error instanceof GuardBrokenError)) {
          this.#core.logger.error({ path: place.path, error: asError(error).message }, 'a file in place cannot be looked at')
          continue
        }
        broken.set(place, error)
        if (error instanceof PlaceAwayError) file.missing.add(place)
        else if (place !== file.guard) {
          file.setPlaces(file.guard, file.known.filter(known => known !== place))
          forgotten = true
        }
      }
    }
    return { there, broken, forgotten }
  }

  /** These are in place from now on, and their own empty files go. Leaves out what is not free by now. The caller holds `structure` and `recording`. */
  async take (found: readonly FoundPlace[]): Promise<void> {
    const { catalog, bytes, staleFlags, logger } = this.#core
    const taken = [...new Map(found.map(each => [each.file, each])).values()].filter(({ file }) => !file.removed && isFree(file))
    if (taken.length === 0) return
    catalog.setPlaces(taken.map(({ file, place }) => ({ id: file.id, key: file.key, ...file.whole, guard: place, known: placesWith(place, file.known, file.models.size) })))
    for (const { file, place } of taken) {
      file.setPlaces(place, placesWith(place, file.known, file.models.size))
      file.generation++
      file.closed = false
      this.#blocks.presentAll(file)
      staleFlags.mark(file.models)
    }
    try {
      await inParallel(LINKS_AT_ONCE, taken.map(({ file }) => file), async file => { await bytes.remove(file) })
    } catch (error) {
      logger.warn({ error: diskError(error, 'cannot delete an empty file').message }, 'empty files stay behind until the next gc')
    }
  }
}

/** Nothing of it is here, and nobody writes to it: its own file can go. */
function isFree (file: FileRecord): boolean {
  return !file.inPlace && !file.present.full && file.present.count === 0 && file.recorded.count === 0 && file.writing.size === 0 && file.unsynced.size === 0
}

function * groupsOf<T> (items: readonly T[]): Generator<T[]> {
  for (let at = 0; at < items.length; at += FILES_PER_GROUP) yield items.slice(at, at + FILES_PER_GROUP)
}
