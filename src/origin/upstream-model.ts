import { createHash, type Hash } from 'node:crypto'
import { LimitExceededError, MANIFEST_FILES_MAX, UpstreamError, UpstreamMismatchError, isRecord } from '../base/index.ts'
import { COMMIT, canHold, checkForeignPath, checkPath, checkPaths, confusable, gitBlobHash, isRepo, printable } from '../model/index.ts'
import type { UpstreamFile, UpstreamModel } from './types.ts'

const SHA256 = /^[0-9a-f]{64}$/

/**
 * The answer to `GET /api/models/{repo}/revision/{rev}?blobs=true`, checked in full. Throws UpstreamError when it makes no
 * sense, InvalidPathError or LimitExceededError when no model can hold any of these files, or one leads elsewhere.
 */
export function readModel (repo: string, answer: unknown): UpstreamModel {
  const wrong = (what: string): UpstreamError => new UpstreamError(`the upstream's answer about ${repo} makes no sense: ${what}`)
  if (!isRecord(answer)) throw wrong('it is no object')
  const { sha, siblings, gated, id } = answer
  if (typeof sha !== 'string' || !COMMIT.test(sha)) throw wrong('it has no commit')
  if (!Array.isArray(siblings)) throw wrong('it lists no files')
  if (siblings.length > MANIFEST_FILES_MAX) throw new LimitExceededError(`${repo} has ${siblings.length} files; a model holds at most ${MANIFEST_FILES_MAX}`)
  const all = siblings.map((sibling: unknown): UpstreamFile => {
    if (!isRecord(sibling) || typeof sibling.rfilename !== 'string') throw wrong('a file has no name')
    const { rfilename: path, size, blobId: oid, lfs } = sibling
    if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) throw wrong(`the size of ${printable(path)} is missing`)
    if (typeof oid !== 'string' || !COMMIT.test(oid)) throw wrong(`the blob of ${printable(path)} is missing`)
    if (lfs === undefined || lfs === null) return { path, size, oid, sha256: undefined }
    if (!isRecord(lfs) || typeof lfs.sha256 !== 'string' || !SHA256.test(lfs.sha256) || lfs.size !== size) throw wrong(`the LFS pointer of ${printable(path)} is no SHA-256 with the file's size`)
    return { path, size, oid, sha256: lfs.sha256 }
  })
  all.sort((a, b) => (a.path < b.path ? -1 : 1))
  const files: UpstreamFile[] = []
  const foreign: UpstreamFile[] = []
  // LICENSE beside license: the second one, by the order of all, so that every node has the same model.
  const second = confusable(all.map(({ path }) => path).filter(canHold))
  for (const file of all) (isForeign(file.path) || second.has(file.path) ? foreign : files).push(file)
  if (foreign.some(({ path }, at) => path === foreign[at - 1]?.path)) throw wrong('it names a file twice')
  if (files.length === 0 && all[0] !== undefined) checkPath(all[0].path)
  checkPaths(files.map(({ path }) => path))
  const open = (gated === false || gated === undefined || gated === null) && answer.private !== true
  return { repo, commit: sha, restricted: !open, files, foreign, ...(typeof id === 'string' && id !== repo && isRepo(id) ? { id } : {}) }
}

/** Throws InvalidPathError for what is no path at all. */
function isForeign (path: string): boolean {
  if (canHold(path)) return false
  checkForeignPath(path)
  return true
}

/** What names the content of a file: two files with the same are fetched once. */
export function contentOf ({ oid, sha256 }: UpstreamFile): string {
  return sha256 ?? oid
}

/** Feeds on the file from its first byte. */
export function hashFor ({ size, sha256 }: UpstreamFile): Hash {
  return sha256 === undefined ? gitBlobHash(size) : createHash('sha256')
}

/** Throws UpstreamMismatchError, which names the file and both hashes. */
export function checkHash ({ repo, commit }: UpstreamModel, file: UpstreamFile, hash: Hash, from: string): void {
  const found = hash.digest('hex')
  if (found === contentOf(file)) return
  const kind = file.sha256 === undefined ? 'git SHA-1' : 'SHA-256'
  throw new UpstreamMismatchError(`${file.path} of ${repo} at ${commit.slice(0, 12)} has the ${kind} ${found} as it came from ${from}, and the upstream says ${contentOf(file)}; nothing of it is published`)
}

export function bytesOf ({ files }: Pick<UpstreamModel, 'files'>): number {
  return files.reduce((sum, { size }) => sum + size, 0)
}
