import { open, type FileHandle } from 'node:fs/promises'
import { DiskError, ifThere, throwIfAborted } from '../base/index.ts'
import type { ArrivedFile } from './types.ts'

/** A file in an instalment. */
export interface InstalmentFile {
  readonly cid: string
  /** Its file index CID, and the peer that named the model; undefined of one that was published here. */
  readonly index: string | undefined
  readonly from: string | undefined
  /** Its bytes, with the upstream's hash. */
  readonly compared: boolean
}

/**
 * Files of one model that are there while the rest of it is on its way, on this disk or in an instalment: readers need not wait for that.
 * An open file stays readable when publishing takes its name away.
 */
export class Arrivals {
  readonly #here = new Map<string, InstalmentFile | { place: string }>()
  readonly #known = new Set<string>()
  readonly #waiting = new Set<() => void>()

  /** Whole at this place on this disk, and its hash was compared just now. */
  onDisk (path: string, place: string): void { this.#set(path, { place }) }

  /** To here, if it was compared. */
  moved (path: string, place: string): void { if (this.#here.has(path)) this.#set(path, { place }) }

  /** What was compared is not replaced by what was not. */
  inModel (path: string, file: InstalmentFile): void {
    const known = this.#here.get(path)
    if (known === undefined || file.compared || ('cid' in known && !known.compared)) this.#set(path, file)
  }

  /** What these instalments have is known: they need not be looked at again. */
  knows (cid: string): boolean { return this.#known.has(cid) }
  learned (cid: string): void { this.#known.add(cid) }

  /** It could not be had from this instalment, which may be looked at again. */
  drop (path: string, cid: string): void {
    const known = this.#here.get(path)
    if (known !== undefined && 'cid' in known && known.cid === cid) this.#here.delete(path)
    this.#known.delete(cid)
  }

  /** This instalment is another one than was said: but for what was compared nothing of it is taken. */
  refuse (cid: string): void {
    for (const [path, known] of this.#here) if ('cid' in known && known.cid === cid && !known.compared) this.#here.delete(path)
  }

  /** Where it can be loaded from, or is. */
  instalment (path: string): InstalmentFile | undefined {
    const known = this.#here.get(path)
    return known !== undefined && 'cid' in known ? known : undefined
  }

  /** The fetch is over: what came of it is in the store, or was left for the next. */
  clear (): void {
    this.#here.clear()
    this.#known.clear()
  }

  /** When it is there; of what comes another way, never. Throws the signal's reason. The caller closes a file. */
  async take (path: string, signal: AbortSignal): Promise<ArrivedFile | InstalmentFile> {
    for (;;) {
      throwIfAborted(signal)
      const known = this.#here.get(path)
      if (known !== undefined && 'cid' in known) return known
      const file = known === undefined ? undefined : await opened(known.place)
      if (file !== undefined) return file
      if (this.#here.get(path) === known) await this.#change(signal)
    }
  }

  #set (path: string, known: InstalmentFile | { place: string }): void {
    this.#here.set(path, known)
    for (const wake of this.#waiting) wake()
  }

  async #change (signal: AbortSignal): Promise<void> {
    await new Promise<void>(resolve => {
      const wake = (): void => {
        this.#waiting.delete(wake)
        signal.removeEventListener('abort', wake)
        resolve()
      }
      this.#waiting.add(wake)
      signal.addEventListener('abort', wake, { once: true })
    })
  }
}

/** Undefined when it has gone into the store. */
async function opened (place: string): Promise<ArrivedFile | undefined> {
  const handle = await ifThere(open(place, 'r'))
  if (handle === undefined) return undefined
  return {
    size: await sizeOf(handle),
    read: async (offset, into) => {
      for (let done = 0; done < into.length;) {
        const { bytesRead } = await handle.read(into, done, into.length - done, offset + done)
        if (bytesRead === 0) throw new DiskError(`${place} ends before byte ${offset + into.length}`)
        done += bytesRead
      }
    },
    close: async () => { await handle.close() }
  }
}

/** A handle that nobody closes ends the process when it is collected (Node 26). */
async function sizeOf (handle: FileHandle): Promise<number> {
  try {
    return (await handle.stat()).size
  } catch (error) {
    await handle.close()
    throw error
  }
}
