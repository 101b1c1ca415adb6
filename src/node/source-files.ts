import type { Stats } from 'node:fs'
import { lstat, readdir, realpath, stat } from 'node:fs/promises'
import { basename, join, sep } from 'node:path'
import {
  EmptyModelError, LimitExceededError, MANIFEST_FILES_MAX, PATH_DEPTH_MAX, SymbolicLinkError, UnreadableSourceError, UnsupportedFileError,
  asError, systemCode, throwIfAborted, type AbortOptions
} from '../base/index.ts'
import { checkPaths } from '../model/index.ts'
import type { FileGuard } from '../storage/store.ts'
import { OwnFiles } from './own-files.ts'

/** A file to publish: its path within the model, where it is, and what must not change while it is read. */
export interface SourceFile { modelPath: string, guard: FileGuard }

export interface SourceTree {
  files: SourceFile[]
  bytes: number
  warnings: string[]
}

export interface SourceOptions extends AbortOptions {
  /** Take what symbolic links point to. */
  follow: boolean
  /** Take it also where this is given, but only files below one of these directories: a link out of them is refused. */
  followWithin?: readonly string[] | undefined
  /** The data directory of this node: nothing in it is taken, but models. */
  ownDirectory?: string | undefined
  /** They are to be referenced where they are: then not even models of the data directory. */
  inPlace?: boolean | undefined
}

interface Walk extends SourceOptions { own: OwnFiles | undefined }

/**
 * Everything below `path` that a model will hold, sorted by path and checked against the path rules before a byte is
 * read. Throws UnreadableSourceError, SymbolicLinkError, UnsupportedFileError, InvalidPathError, EmptyModelError,
 * LimitExceededError; UsageError for what the node lives by.
 */
export async function listSource (path: string, given: SourceOptions): Promise<SourceTree> {
  const tree: SourceTree = { files: [], bytes: 0, warnings: [] }
  const { ownDirectory } = given
  const options: Walk = {
    ...given,
    followWithin: given.followWithin === undefined ? undefined : await realDirectories(given.followWithin),
    own: ownDirectory === undefined ? undefined : await OwnFiles.of(ownDirectory, { inPlace: given.inPlace ?? false }).catch(error => { throw unreadable(ownDirectory, error) })
  }
  const top = await look(path, options)
  const real = await realpath(path).catch(error => { throw unreadable(path, error) })
  await options.own?.checkPlace(real, top)
  if (top.isDirectory()) await walk(path, '', [real], tree, options)
  else if (top.isFile()) push(tree, basename(path), path, top)
  else throw unsupported(path)
  if (tree.files.length === 0) throw new EmptyModelError(`${path} holds no file; a model needs at least one`)
  checkPaths(tree.files.map(file => file.modelPath))
  tree.files.sort((a, b) => (a.modelPath < b.modelPath ? -1 : 1))
  return tree
}

async function walk (directory: string, prefix: string, above: string[], tree: SourceTree, options: Walk): Promise<void> {
  throwIfAborted(options.signal)
  if (above.length > PATH_DEPTH_MAX) throw new LimitExceededError(`${directory} is more than ${PATH_DEPTH_MAX} directories deep`)
  const names = await readdir(directory).catch(error => { throw unreadable(directory, error) })
  if (names.length === 0) tree.warnings.push(`the empty directory ${prefix === '' ? directory : prefix} is left out: a model holds files only`)
  for (const name of names) {
    const path = join(directory, name)
    const modelPath = prefix === '' ? name : `${prefix}/${name}`
    const target = options.followWithin === undefined ? undefined : await targetWithin(path, options.followWithin)
    if (target !== undefined) {
      await options.own?.checkPlace(target.path, target.info)
      push(tree, modelPath, target.path, target.info)
      continue
    }
    const info = await look(path, options)
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

async function realDirectories (directories: readonly string[]): Promise<string[]> {
  const found = await Promise.all(directories.map(async directory => await realpath(directory).catch(() => undefined)))
  return found.filter(directory => directory !== undefined)
}

/** The file a link points to, by its own path; undefined when `path` is no link. Throws SymbolicLinkError when it points elsewhere. */
async function targetWithin (path: string, directories: readonly string[]): Promise<{ path: string, info: Stats } | undefined> {
  const link = await lstat(path).catch(error => { throw unreadable(path, error) })
  if (!link.isSymbolicLink()) return undefined
  const target = await realpath(path).catch(error => { throw unreadable(path, error) })
  if (!directories.some(directory => target.startsWith(directory + sep))) {
    throw new SymbolicLinkError(`${path} points to ${target}, which is not below ${directories.join(' or ') || 'any directory that is there'}; take the link away`)
  }
  const info = await lstat(target).catch(error => { throw unreadable(path, error) })
  if (!info.isFile()) throw unsupported(path)
  return { path: target, info }
}

async function look (path: string, { follow, own }: Walk): Promise<Awaited<ReturnType<typeof lstat>>> {
  const info = await lstat(path).catch(error => { throw unreadable(path, error) })
  if (!info.isSymbolicLink()) {
    own?.check(path, info)
    return info
  }
  if (!follow) throw new SymbolicLinkError(`${path} is a symbolic link; add with --follow to take what it points to`)
  const failed = (error: unknown): never => { throw unreadable(path, error) }
  const target = await stat(path).catch(failed)
  await own?.checkPlace(await realpath(path).catch(failed), target)
  return target
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
