/**
 * Puts the files of a loaded model where the user wants them, with the user's rights: the daemon may run as somebody
 * else. By reflink where the file system can, else by hard link (only of files the store has sealed, mode 0444), else
 * by copying. A file appears under its name only when it is whole.
 */
import { createHash, randomBytes } from 'node:crypto'
import { constants, unlinkSync } from 'node:fs'
import { chmod, copyFile, link, lstat, open, rename, stat, type FileHandle } from 'node:fs/promises'
import { dirname, join, relative, resolve, sep } from 'node:path'
import {
  AbortError, DiskError, OutOfSpaceError, OutputExistsError, ProtocolError, ShoalError, SourceChangedError, asError, makeDirectories, systemCode, throwIfAborted, type AbortOptions, type ProgressOptions
} from '../base/index.ts'
import type { OpenFile } from '../node/types.ts'

export interface PlaceProgress { bytesDone: number, bytesTotal: number, path: string }
export type PlaceOptions = AbortOptions & ProgressOptions<PlaceProgress>

export interface PlaceResult {
  /** The directory, absolute. */
  path: string
  /** Files by how they came there. */
  reflinked: number
  linked: number
  copied: number
  /** Were there before, with the same content. */
  kept: number
}

type PlaceableFile = Pick<OpenFile, 'path' | 'size' | 'sha256' | 'localPath' | 'guard'>
type How = 'reflinked' | 'linked' | 'copied' | 'kept'

/** What a file system or kernel that has no reflinks says, or one whose two paths lie on different volumes. */
const NO_REFLINK = new Set(['ENOTSUP', 'EOPNOTSUPP', 'EXDEV', 'EINVAL', 'ENOTTY', 'ENOSYS', 'EPERM', 'EACCES'])
/** EPERM: fs.protected_hardlinks and file systems without links; EMLINK: too many. */
const NO_LINK = new Set(['EXDEV', 'EPERM', 'EACCES', 'EMLINK', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'])
const COPY_BYTES = 4 * 1024 * 1024

/**
 * Places `files` below `directory`. Nothing is overwritten: a file with the same content is kept, any other throws
 * OutputExistsError before anything is placed. Also throws DiskError, OutOfSpaceError, AbortError.
 */
export async function placeFiles (files: readonly PlaceableFile[], directory: string, options: PlaceOptions = {}): Promise<PlaceResult> {
  const result: PlaceResult = { path: resolve(directory), reflinked: 0, linked: 0, copied: 0, kept: 0 }
  const bytesTotal = files.reduce((sum, file) => sum + file.size, 0)
  let bytesBefore = 0
  const progress = (file: PlaceableFile) => (bytes: number): void => {
    options.onProgress?.({ bytesDone: bytesBefore + bytes, bytesTotal, path: file.path })
  }
  try {
    const targets = files.map(file => targetOf(file, result.path))
    const kept = new Set<string>()
    for (const [position, file] of files.entries()) {
      const target = targets[position] ?? ''
      await checkDirectories(result.path, target)
      if (await isThere(file, target, options.signal)) kept.add(target)
    }
    await makeDirectories(result.path)
    for (const [position, file] of files.entries()) {
      throwIfAborted(options.signal)
      const target = targets[position] ?? ''
      result[kept.has(target) ? 'kept' : await placeFile(file, target, { signal: options.signal, onBytes: progress(file) })]++
      progress(file)(file.size)
      bytesBefore += file.size
    }
    return result
  } catch (error) {
    throw placeError(error, result.path)
  }
}

function targetOf ({ path }: PlaceableFile, directory: string): string {
  const target = resolve(directory, path)
  const prefix = directory.endsWith(sep) ? directory : directory + sep
  // The path rules of models make this impossible; it is checked again where it would hurt.
  if (!target.startsWith(prefix)) throw new ProtocolError(`the daemon named a file outside the output directory: ${JSON.stringify(path)}`)
  return target
}

/** What leads from the directory to the target must be real directories: a link would take the file somewhere else. Throws OutputExistsError. */
export async function checkDirectories (directory: string, target: string): Promise<void> {
  let path = directory
  for (const name of relative(directory, dirname(target)).split(sep).filter(part => part !== '')) {
    path += sep + name
    const there = await unless('ENOENT', lstat(path))
    if (there === undefined) return
    if (!there.isDirectory()) throw new OutputExistsError(`${path} is there already and is no directory; move it away or choose another --output`)
  }
}

/** True when the target has the right content; throws OutputExistsError when it has another. */
async function isThere (file: PlaceableFile, target: string, signal: AbortSignal | undefined): Promise<boolean> {
  const there = await unless('ENOENT', lstat(target))
  if (there === undefined) return false
  const exists = new OutputExistsError(`${target} is there already and differs from the model's; move it away or choose another --output`)
  if (!there.isFile() || there.size !== file.size) throw exists
  const source = await stat(localPath(file))
  if (source.ino === there.ino && source.dev === there.dev) return true
  if (await sha256(target, signal) !== file.sha256) throw exists
  return true
}

async function placeFile (file: PlaceableFile, target: string, options: { signal?: AbortSignal, onBytes: (bytes: number) => void }): Promise<How> {
  await makeDirectories(dirname(target))
  const source = localPath(file)
  const temporary = new TemporaryFile(target)
  try {
    if (await unless(NO_REFLINK, copyFile(source, temporary.path, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL).then(() => true)) === true) {
      await chmod(temporary.path, 0o644)
      await checkUnchanged(file, source)
      await temporary.publish()
      return 'reflinked'
    }
    // A file in place is somebody's own, to be changed some day: a link would tie the copy to it.
    const sealed = file.guard === undefined && ((await stat(source)).mode & 0o222) === 0
    if (sealed && await unless(NO_LINK, link(source, target).then(() => true)) === true) return 'linked'
    await copy(source, temporary.path, options)
    await checkUnchanged(file, source)
    await temporary.publish()
    return 'copied'
  } finally {
    temporary.remove()
  }
}

/** The daemon checks a file in place whenever it reads it; here it was read without the daemon. */
async function checkUnchanged ({ guard, path }: PlaceableFile, source: string): Promise<void> {
  if (guard === undefined) return
  const now = await stat(source)
  if (now.size !== guard.size || now.mtimeMs !== guard.mtimeMs || now.ino !== guard.ino) {
    throw new SourceChangedError(`${path} is held in place as ${source} and has changed since it was added; add it again`)
  }
}

function localPath (file: PlaceableFile): string {
  if (file.localPath === undefined) throw new DiskError(`${file.path} is held in memory only; this node has no files to place`)
  return file.localPath
}

/** A name beside the target that is gone when the work is, even when the process exits in between. */
class TemporaryFile {
  readonly path: string
  readonly #target: string
  readonly #onExit = (): void => { this.#unlink() }

  constructor (target: string) {
    this.#target = target
    // Without the target's name: that may be as long as the file system takes.
    this.path = join(dirname(target), `.shoal-${randomBytes(6).toString('hex')}`)
    process.on('exit', this.#onExit)
  }

  /** Gives the file its name, unless something has got there first. */
  async publish (): Promise<void> {
    const linked = await unless(NO_LINK, link(this.path, this.#target).then(() => true))
    if (linked === true) return
    // A rename would replace what is there: the name is taken first.
    await (await open(this.#target, 'wx')).close()
    await rename(this.path, this.#target)
  }

  remove (): void {
    process.removeListener('exit', this.#onExit)
    this.#unlink()
  }

  #unlink (): void {
    try {
      unlinkSync(this.path)
    } catch (error) {
      // Where it could not be made because of its name, what that said is to be told.
      if (!['ENOENT', 'ENAMETOOLONG'].includes(systemCode(error) ?? '')) throw error
    }
  }
}

async function copy (source: string, target: string, { signal, onBytes }: { signal?: AbortSignal, onBytes: (bytes: number) => void }): Promise<void> {
  await withFile(source, 'r', async from => {
    await withFile(target, 'wx', async to => {
      let done = 0
      for await (const bytes of read(from, signal)) {
        await writeFully(to, bytes, done)
        done += bytes.length
        onBytes(done)
      }
      await to.datasync()
    })
  })
}

async function withFile (path: string, flags: 'r' | 'wx', work: (handle: FileHandle) => Promise<void>): Promise<void> {
  const handle = await open(path, flags, 0o644)
  try {
    await work(handle)
  } finally {
    await handle.close()
  }
}

/** The file from its start; each piece lives until the next is asked for. */
async function * read (handle: FileHandle, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
  const buffer = Buffer.allocUnsafeSlow(COPY_BYTES)
  for (;;) {
    throwIfAborted(signal)
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, null)
    if (bytesRead === 0) return
    yield buffer.subarray(0, bytesRead)
  }
}

async function writeFully (handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) done += (await handle.write(bytes, done, bytes.length - done, position + done)).bytesWritten
}

async function sha256 (path: string, signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash('sha256')
  await withFile(path, 'r', async handle => {
    for await (const bytes of read(handle, signal)) hash.update(bytes)
  })
  return hash.digest('hex')
}

/** What the promise gives, or undefined when it fails with one of these codes. */
async function unless<T> (codes: string | Set<string>, work: Promise<T>): Promise<T | undefined> {
  try {
    return await work
  } catch (error) {
    const code = systemCode(error)
    if (code !== undefined && (typeof codes === 'string' ? codes === code : codes.has(code))) return undefined
    throw error
  }
}

function placeError (error: unknown, directory: string): ShoalError {
  if (error instanceof ShoalError) return error
  const { name, message } = asError(error)
  if (name === 'AbortError') return new AbortError('the call was aborted', { cause: error })
  const code = systemCode(error)
  if (code === 'EEXIST') return new OutputExistsError(`something was written to ${directory} meanwhile (${message}); run it again`, { cause: error })
  if (code === 'ENOSPC' || code === 'EDQUOT') return new OutOfSpaceError(`no space is left for ${directory}; free some, or choose another --output. The model itself is kept`, { cause: error })
  if (code === 'EACCES') return new DiskError(`no permission: ${message}; the output, and the files of the daemon, must be accessible to you`, { cause: error })
  return new DiskError(`cannot place the files in ${directory}: ${message}; choose another --output`, { cause: error })
}
