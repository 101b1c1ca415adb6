/**
 * The cache of Hugging Face clients on this machine, as huggingface_hub 2 and 0.x keep it (docs: guides/manage-cache):
 *
 *     models--ORG--NAME/
 *       blobs/<etag>                  the files, each once
 *       refs/<revision>               holds a commit
 *       snapshots/<commit>/<path>     relative links to blobs
 *       trees/<commit>.json           what belongs to the commit; clients take a snapshot without it for whole
 */
import { lstat, mkdir, open, readFile, readlink, realpath, rename, stat, symlink, unlink } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { CACHE_FILE_BYTES_MAX, DiskError, OutOfSpaceError, OutputExistsError, RepoNotCachedError, ShoalError, asError, systemCode, systemRandom } from '../base/index.ts'
import { checkDirectories, placeFiles, type PlaceOptions } from '../api/place.ts'
import { COMMIT, parseRepoName, type RepoName } from '../model/repo-name.ts'
import type { OpenFile } from '../node/types.ts'
import { commitOf, identityOf } from './identity.ts'

/** What huggingface_hub knows (_tree_cache.py). */
const TREE_FORMAT = 1
const TAG = `Signature: 8a477f597d28d172789f06886806bc55
# This file marks a cache directory: what is here can be fetched again.
# See https://bford.info/cachedir/
`

/** Where clients keep their cache when they are told nothing else (huggingface_hub, constants.py). */
export function defaultCacheDirectory (env: Record<string, string | undefined> = process.env): string {
  const given = [env.HF_HUB_CACHE, env.HUGGINGFACE_HUB_CACHE].find(path => path !== undefined && path !== '')
  if (given !== undefined) return resolve(home(given))
  const base = env.HF_HOME ?? join(env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'huggingface')
  return join(resolve(home(base)), 'hub')
}

function home (path: string): string {
  return path === '~' || path.startsWith('~/') ? join(homedir(), path.slice(1)) : path
}

function repoFolder (cacheDirectory: string, repo: string): string {
  return join(resolve(cacheDirectory), `models--${repo.replace('/', '--')}`)
}

/** cid/<CID> is no name that could be linked, but one that clients ask for. */
export interface CachedName { repo: string, revision: string }

export interface ExportResult {
  /** The snapshot, absolute: what clients get from it. */
  path: string
  commit: string
  bytes: number
  files: number
  reflinked: number
  linked: number
  copied: number
  kept: number
}

/**
 * Writes a model into the cache so that clients find it as if they had downloaded it: the blobs first, by reflink or hard
 * link where that can be, the reference last. Blobs that are there are kept. Throws OutputExistsError, OutOfSpaceError,
 * DiskError, AbortError.
 */
export async function exportToCache (cid: string, files: readonly OpenFile[], { repo, revision }: CachedName, cacheDirectory: string, options: PlaceOptions = {}): Promise<ExportResult> {
  const folder = repoFolder(cacheDirectory, repo)
  const commit = commitOf(cid)
  const named = files.map(file => ({ file, identity: identityOf({ ...file, gitSha1: file.gitSha1 }) }))
  const blobs = new Map(named.map(({ file, identity }) => [identity.etag, { ...file, path: identity.etag }]))
  try {
    const lacking = []
    for (const blob of blobs.values()) if (!await isShared(join(folder, 'blobs', blob.path), blob.size, cacheDirectory)) lacking.push(blob)
    const { path: _, ...placed } = await placeFiles(lacking, join(folder, 'blobs'), options)
    const snapshot = join(folder, 'snapshots', commit)
    for (const { file, identity } of named) await linkBlob(join(folder, 'blobs', identity.etag), folder, join(snapshot, file.path))
    const entries = named.map(({ file, identity: { oid, lfs } }): [string, object] => [file.path, {
      size: file.size, blob_id: oid, ...(lfs === undefined ? {} : { lfs_sha256: lfs.sha256, lfs_size: lfs.size })
    }])
    await replace(folder, join(folder, 'trees', `${commit}.json`), JSON.stringify({ format_version: TREE_FORMAT, files: Object.fromEntries(entries) }, undefined, 1))
    await replace(folder, join(folder, 'refs', revision), commit)
    await tag(resolve(cacheDirectory))
    return { ...placed, kept: placed.kept + blobs.size - lacking.length, path: snapshot, commit, files: files.length, bytes: files.reduce((sum, file) => sum + file.size, 0) }
  } catch (error) {
    throw cacheError(error, folder)
  }
}

/** A blob that clients share between repositories is a link to where they keep those: good as it is. */
async function isShared (path: string, size: number, cacheDirectory: string): Promise<boolean> {
  const there = await ifThere(lstat(path))
  if (there?.isSymbolicLink() !== true) return false
  const [target, store] = await Promise.all([ifThere(realpath(path)), ifThere(realpath(join(cacheDirectory, 'blobs')))])
  return target !== undefined && store !== undefined && target.startsWith(store + sep) && (await stat(target)).size === size
}

async function linkBlob (blob: string, folder: string, path: string): Promise<void> {
  const target = relative(dirname(path), blob)
  await checkDirectories(folder, path)
  await mkdir(dirname(path), { recursive: true })
  const there = await ifThere(lstat(path))
  if (there?.isSymbolicLink() === true && await readlink(path) === target) return
  if (there !== undefined) throw new OutputExistsError(`${path} is there already and is no link to ${target}; move it away, or choose another --cache-dir`)
  await symlink(target, path)
}

/** Writes a small file so that it is seen whole or not at all. */
async function replace (folder: string, path: string, content: string): Promise<void> {
  await checkDirectories(folder, path)
  await mkdir(dirname(path), { recursive: true })
  const temporary = `${path}.${Buffer.from(systemRandom.bytes(6)).toString('hex')}.tmp`
  try {
    const file = await open(temporary, 'wx', 0o644)
    try {
      await file.writeFile(content)
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await unlink(temporary).catch(() => undefined)
    throw error
  }
}

/** For backup programs; a cache without it works as well. */
async function tag (cacheDirectory: string): Promise<void> {
  try {
    const file = await open(join(cacheDirectory, 'CACHEDIR.TAG'), 'wx', 0o644)
    await file.writeFile(TAG)
    await file.close()
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
  }
}

export interface CachedSnapshot {
  name: RepoName
  commit: string
  /** The snapshot's directory. */
  path: string
  /** Where its links may lead to. */
  within: string[]
  /** Files that belong to the commit and are not here; undefined when nobody noted what does. */
  missing: string[] | undefined
}

/** A snapshot that some client has downloaded. Throws RepoNotCachedError, InvalidRepoNameError. */
export async function findSnapshot (repo: string, revision: string, cacheDirectory: string): Promise<CachedSnapshot> {
  const name = parseRepoName(COMMIT.test(revision) ? repo : `${repo}@${revision}`)
  const folder = repoFolder(cacheDirectory, name.repo)
  const commit = COMMIT.test(revision) ? revision : (await readSmall(join(folder, 'refs', ...name.revision.split('/'))))?.trim()
  const where = `${resolve(cacheDirectory)}; see what is with: hf cache ls, or give another --revision or --cache-dir`
  if (commit === undefined || !COMMIT.test(commit)) throw new RepoNotCachedError(`no client has downloaded ${repo} at ${revision} to ${where}`)
  const path = join(folder, 'snapshots', commit)
  if ((await ifThere(stat(path)))?.isDirectory() !== true) throw new RepoNotCachedError(`there is no snapshot of ${repo} at ${revision} in ${where}`)
  return { name, commit, path, within: [join(folder, 'blobs'), join(resolve(cacheDirectory), 'blobs')], missing: await missingOf(folder, commit, path) }
}

async function missingOf (folder: string, commit: string, snapshot: string): Promise<string[] | undefined> {
  const text = await readSmall(join(folder, 'trees', `${commit}.json`))
  if (text === undefined) return undefined
  let files: string[]
  try {
    const tree = JSON.parse(text) as { files?: Record<string, unknown> } | null
    files = Object.keys(tree?.files ?? {})
  } catch {
    return undefined // a hint, written by others
  }
  const missing: string[] = []
  for (const file of files) if (await ifThere(stat(join(snapshot, file))) === undefined) missing.push(file)
  return missing
}

async function readSmall (path: string): Promise<string | undefined> {
  const info = await ifThere(stat(path))
  if (info?.isFile() !== true || info.size > CACHE_FILE_BYTES_MAX) return undefined
  return await ifThere(readFile(path, 'utf8'))
}

async function ifThere<T> (work: Promise<T>): Promise<T | undefined> {
  try {
    return await work
  } catch (error) {
    const code = systemCode(error)
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw error
  }
}

function cacheError (error: unknown, folder: string): ShoalError {
  if (error instanceof ShoalError) return error
  const code = systemCode(error)
  if (code === 'ENOSPC' || code === 'EDQUOT') return new OutOfSpaceError(`no space is left for ${folder}; free some, or choose another --cache-dir. The model itself is kept`, { cause: error })
  return new DiskError(`cannot write the cache in ${folder}: ${asError(error).message}`, { cause: error })
}
