import { lstat, readdir, realpath, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import {
  EmptyModelError, LimitExceededError, MANIFEST_FILES_MAX, PATH_DEPTH_MAX, SymbolicLinkError, UnreadableSourceError, UnsupportedFileError,
  asError, systemCode, throwIfAborted
} from '../base/index.ts'
import { checkPaths } from '../model/index.ts'
import type { FileGuard } from '../storage/store.ts'

/** A file to publish: its path within the model, where it is, and what must not change while it is read. */
export interface SourceFile { modelPath: string, guard: FileGuard }

export interface SourceTree {
  files: SourceFile[]
  bytes: number
  warnings: string[]
}

/**
 * Everything below `path` that a model will hold, sorted by path and checked against the path rules before a byte is
 * read. Throws UnreadableSourceError, SymbolicLinkError, UnsupportedFileError, InvalidPathError, EmptyModelError,
 * LimitExceededError.
 */
export async function listSource (path: string, options: { follow: boolean, signal?: AbortSignal }): Promise<SourceTree> {
  const tree: SourceTree = { files: [], bytes: 0, warnings: [] }
  const top = await look(path, options.follow)
  if (top.isDirectory()) await walk(path, '', [await realpath(path)], tree, options)
  else if (top.isFile()) push(tree, basename(path), path, top)
  else throw unsupported(path)
  if (tree.files.length === 0) throw new EmptyModelError(`${path} holds no file; a model needs at least one`)
  checkPaths(tree.files.map(file => file.modelPath))
  tree.files.sort((a, b) => (a.modelPath < b.modelPath ? -1 : 1))
  return tree
}

async function walk (directory: string, prefix: string, above: string[], tree: SourceTree, options: { follow: boolean, signal?: AbortSignal }): Promise<void> {
  throwIfAborted(options.signal)
  if (above.length > PATH_DEPTH_MAX) throw new LimitExceededError(`${directory} is more than ${PATH_DEPTH_MAX} directories deep`)
  const names = await readdir(directory).catch(error => { throw unreadable(directory, error) })
  if (names.length === 0) tree.warnings.push(`the empty directory ${prefix === '' ? directory : prefix} is left out: a model holds files only`)
  for (const name of names) {
    const path = join(directory, name)
    const modelPath = prefix === '' ? name : `${prefix}/${name}`
    const info = await look(path, options.follow)
    if (info.isDirectory()) {
      const real = await realpath(path)
      if (above.includes(real)) throw new SymbolicLinkError(`${path} leads back to a directory above it; take the link away`)
      await walk(path, modelPath, [...above, real], tree, options)
    } else if (info.isFile()) {
      push(tree, modelPath, path, info)
    } else {
      throw unsupported(path)
    }
  }
}

async function look (path: string, follow: boolean): Promise<Awaited<ReturnType<typeof lstat>>> {
  const info = await lstat(path).catch(error => { throw unreadable(path, error) })
  if (!info.isSymbolicLink()) return info
  if (!follow) throw new SymbolicLinkError(`${path} is a symbolic link; add with --follow to take what it points to`)
  return await stat(path).catch(error => { throw unreadable(path, error) })
}

function push (tree: SourceTree, modelPath: string, path: string, info: Awaited<ReturnType<typeof lstat>>): void {
  if (tree.files.length >= MANIFEST_FILES_MAX) throw new LimitExceededError(`a model holds at most ${MANIFEST_FILES_MAX} files; ${path} would be one more`)
  const guard = { path, size: Number(info.size), mtimeMs: Number(info.mtimeMs), ino: Number(info.ino) }
  tree.files.push({ modelPath, guard })
  tree.bytes += guard.size
}

function unsupported (path: string): Error {
  return new UnsupportedFileError(`${path} is neither a file nor a directory; take it out of the model`)
}

function unreadable (path: string, error: unknown): Error {
  const why = systemCode(error) ?? asError(error).message
  return new UnreadableSourceError(`cannot read ${path} (${why}); check that it exists and that the daemon's user may read it`, { cause: error })
}
