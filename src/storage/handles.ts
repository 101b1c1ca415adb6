import { constants, read, write } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { DiskError } from '../base/index.ts'

export type HandleMode = 'read' | 'write' | 'direct'

const FLAGS: Record<HandleMode, number> = {
  read: constants.O_RDONLY | constants.O_NONBLOCK, // a pipe in the place of a user's file must not keep a thread for good
  write: constants.O_RDWR,
  direct: constants.O_RDWR | constants.O_DIRECT
}

interface Entry {
  path: string
  opening: Promise<FileHandle>
  users: number
  forgotten: boolean
}

export interface Lease {
  handle: FileHandle
  release: () => void
}

/**
 * Open descriptors by path and mode, shared by everyone who reads or writes the file, the least recently used closed
 * when there are too many. A descriptor in use is never closed under its user.
 */
export class HandlePool {
  readonly #max: number
  /** In order of use: a Map keeps insertion order, and each use moves the entry to the end. */
  readonly #entries = new Map<string, Entry>()
  readonly #closing = new Set<Promise<void>>()

  constructor (max: number) {
    this.#max = max
  }

  get size (): number { return this.#entries.size }

  async use<T> (path: string, mode: HandleMode, operation: (handle: FileHandle) => Promise<T>): Promise<T> {
    const { handle, release } = await this.acquire(path, mode)
    try {
      return await operation(handle)
    } finally {
      release()
    }
  }

  async acquire (path: string, mode: HandleMode): Promise<Lease> {
    const key = `${mode}:${path}`
    let entry = this.#entries.get(key)
    if (entry === undefined) entry = { path, opening: open(path, FLAGS[mode]), users: 0, forgotten: false }
    else this.#entries.delete(key)
    this.#entries.set(key, entry)
    entry.users++
    this.#trim()
    const held = entry
    try {
      const handle = await held.opening
      let released = false
      return {
        handle,
        release: () => {
          if (released) return
          released = true
          if (--held.users === 0 && held.forgotten) void this.#close(held)
        }
      }
    } catch (error) {
      held.users--
      held.forgotten = true
      if (this.#entries.get(key) === held) this.#entries.delete(key)
      throw error
    }
  }

  /**
   * Closes what is open of this path, now or when its last user is done; the next use opens it anew. Resolves when what
   * nobody uses is closed: only then does the file system free a deleted file.
   */
  async forget (path: string): Promise<void> {
    const closing: Array<Promise<void>> = []
    for (const mode of ['read', 'write', 'direct'] as const) {
      const entry = this.#entries.get(`${mode}:${path}`)
      if (entry !== undefined) closing.push(this.#drop(`${mode}:${path}`, entry))
    }
    await Promise.all(closing)
  }

  /** Closes everything. The caller has seen to it that nobody uses the pool any more. */
  async close (): Promise<void> {
    for (const [key, entry] of this.#entries) void this.#drop(key, entry)
    await Promise.all(this.#closing)
  }

  #trim (): void {
    if (this.#entries.size <= this.#max) return
    for (const [key, entry] of this.#entries) {
      if (entry.users > 0) continue
      void this.#drop(key, entry)
      if (this.#entries.size <= this.#max) return
    }
  }

  async #drop (key: string, entry: Entry): Promise<void> {
    this.#entries.delete(key)
    entry.forgotten = true
    if (entry.users === 0) await this.#close(entry)
  }

  async #close (entry: Entry): Promise<void> {
    // A failing close has nothing to tell: what was written was synced before, or is not recorded.
    const closing = entry.opening.then(async handle => { await handle.close() }).catch(() => undefined)
    this.#closing.add(closing)
    await closing
    this.#closing.delete(closing)
  }
}

/**
 * One write, which may be short; says how many bytes it was. Like FileHandle.write and read, for a third of what those cost in JavaScript:
 * the caller holds a lease, so the descriptor stays open.
 */
export async function writeOnce (handle: FileHandle, bytes: Uint8Array, offset: number): Promise<number> {
  return await new Promise((resolve, reject) => {
    write(handle.fd, bytes, 0, bytes.length, offset, (error, count) => { if (error === null) resolve(count); else reject(error) })
  })
}

async function readOnce (handle: FileHandle, into: Uint8Array, offset: number): Promise<number> {
  return await new Promise((resolve, reject) => {
    read(handle.fd, into, 0, into.length, offset, (error, count) => { if (error === null) resolve(count); else reject(error) })
  })
}

/** A write may be short, at a quota or a size limit; the next one then says why. */
export async function writeFully (handle: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const written = await writeOnce(handle, done === 0 ? bytes : bytes.subarray(done), offset + done)
    if (written === 0) throw new DiskError(`a write of ${bytes.length - done} bytes at ${offset + done} wrote nothing`)
    done += written
  }
}

/** Reads until `into` is full or the file ends; says how much there was. */
export async function readFully (handle: FileHandle, into: Uint8Array, offset: number): Promise<number> {
  let done = 0
  while (done < into.length) {
    const count = await readOnce(handle, done === 0 ? into : into.subarray(done), offset + done)
    if (count === 0) break
    done += count
  }
  return done
}
