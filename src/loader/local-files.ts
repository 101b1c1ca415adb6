import type { Stats } from 'node:fs'
import { DiskError, LOADER_HANDLES_MAX, LOADER_READ_BYTES_MAX, ModelNotFoundError, SourceChangedError, UsageError, asError, systemCode, throwIfAborted } from '../base/index.ts'
import type { OpenFile } from '../node/types.ts'
import { HandlePool, readFully } from '../storage/handles.ts'

/** A file that was complete is open for writing: the daemon removed it, and somebody loads it again. */
export class NotSealedError extends Error {}

const ANY_WRITE = 0o222

/**
 * Positioned reads from the daemon's files. What the daemon has said of a file (its blocks are there) holds for the file
 * it said it of, so each read checks that this is still the one: its size, and its guard when it is a user's own file.
 */
export class LocalFiles {
  readonly #handles = new HandlePool(LOADER_HANDLES_MAX)

  /**
   * Bytes in a buffer of their own, so that a typed array over them is aligned. `sealed`: the file is known as complete,
   * so the daemon has closed it against writing. Throws NotSealedError when it has not, SourceChangedError,
   * ModelNotFoundError, DiskError.
   */
  async read (file: OpenFile, offset: number, length: number, options: { sealed: boolean, signal: AbortSignal }): Promise<Uint8Array> {
    const path = this.#path(file)
    const { sealed, signal } = options
    throwIfAborted(signal)
    try {
      return await this.#handles.use(path, 'read', async handle => {
        const stats = await handle.stat()
        if (stats.size !== file.size) throw changed(file, `it has ${stats.size} bytes and should have ${file.size}`)
        if (sealed && file.guard === undefined && (stats.mode & ANY_WRITE) !== 0) throw new NotSealedError()
        checkGuard(file, stats)
        const bytes = new Uint8Array(Buffer.allocUnsafeSlow(length).buffer)
        for (let at = 0; at < length; at += LOADER_READ_BYTES_MAX) {
          throwIfAborted(signal)
          const part = bytes.subarray(at, at + LOADER_READ_BYTES_MAX)
          if (await readFully(handle, part, offset + at) < part.length) throw changed(file, 'it was cut short')
        }
        if (file.guard !== undefined) checkGuard(file, await handle.stat())
        return bytes
      })
    } catch (error) {
      await this.#handles.forget(path) // what stands there at the next read may be another file
      throw explained(file, error)
    }
  }

  /** Closes what is open. No read may be running. */
  async close (): Promise<void> {
    await this.#handles.close()
  }

  #path (file: OpenFile): string {
    if (file.localPath !== undefined) return file.localPath
    throw new UsageError(`the daemon holds ${file.path} in memory only; the loader reads files, so start the daemon with a data directory`)
  }
}

function checkGuard (file: OpenFile, stats: Stats): void {
  for (const fact of ['size', 'mtimeMs', 'ino'] as const) {
    if (file.guard !== undefined && file.guard[fact] !== stats[fact]) throw changed(file, `its ${fact} was ${file.guard[fact]} when it was added and is ${stats[fact]}`)
  }
}

function changed (file: OpenFile, why: string): SourceChangedError {
  return new SourceChangedError(`${file.localPath ?? file.path} changed since the daemon vouched for it: ${why}; add the model again, or load it again from the swarm`)
}

function explained (file: OpenFile, error: unknown): unknown {
  const code = systemCode(error)
  if (code === undefined) return error
  if (code === 'ENOENT') return new ModelNotFoundError(`${file.localPath ?? file.path} is gone: the model was removed or evicted; open it again to load it anew, and pin what must stay`, { cause: error })
  return new DiskError(`cannot read ${file.localPath ?? file.path}: ${asError(error).message}`, { cause: error })
}
