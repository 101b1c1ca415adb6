import { link, lstat, mkdir, readlink, rm, rmdir, stat, symlink, unlink } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { systemCode } from '../base/index.ts'

/** What a file system says that has no hard links, no more of them for this file (ext4: 65,000), or not from here to there. */
export const NO_HARD_LINK = new Set(['EMLINK', 'EXDEV', 'EPERM', 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS'])

/** Makes `path` another name of the file `target`, or where that cannot be, a symbolic link to it. Replaces what stands there. */
export async function linkInto (target: string, path: string): Promise<void> {
  // Mostly its directory is there and it is not: one call for each of many small files.
  if (await link(target, path).then(() => true, () => false)) return
  await mkdir(dirname(path), { recursive: true })
  if (await isLinked(target, path)) return
  await rm(path, { force: true, recursive: true })
  try {
    await link(target, path)
  } catch (error) {
    if (!NO_HARD_LINK.has(systemCode(error) ?? '')) throw error
    await symlink(relative(dirname(path), target), path)
  }
}

export async function isLinked (target: string, path: string): Promise<boolean> {
  const there = await lstat(path).catch(missing)
  if (there === undefined) return false
  if (there.isSymbolicLink()) return await readlink(path) === relative(dirname(path), target)
  const { ino, dev } = await stat(target)
  return there.ino === ino && there.dev === dev
}

/** Takes a link away, and the directories that are empty without it, up to and without `root`. */
export async function unlinkFrom (root: string, path: string): Promise<void> {
  await unlink(join(root, path)).catch(missing)
  for (let directory = dirname(path); directory !== '.'; directory = dirname(directory)) {
    try {
      await rmdir(join(root, directory))
    } catch {
      return // not empty, or gone: either way nothing more to do
    }
  }
}

/**
 * One of these names, when all that are left are names of one file of this size that has no others. Who else has it by another name
 * would find it written to.
 */
export async function sameFile (paths: readonly string[], size: number): Promise<string | undefined> {
  let found: { path: string, ino: number, dev: number, nlink: number, names: number } | undefined
  for (const path of paths) {
    const info = await lstat(path).catch(missing)
    if (info?.isFile() !== true || info.size !== size) continue
    found ??= { path, ino: info.ino, dev: info.dev, nlink: info.nlink, names: 0 }
    if (info.ino === found.ino && info.dev === found.dev) found.names++
  }
  return found !== undefined && found.names === found.nlink ? found.path : undefined
}

function missing (error: unknown): undefined {
  if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return undefined
  throw error
}
