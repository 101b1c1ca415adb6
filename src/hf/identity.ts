/**
 * What a file is called on the Hub: clients name a cached blob by its ETag and check it by the same name, so it has to be the
 * same in every answer. A file with a git SHA-1 is a plain blob of a git repository; any other is one that git-lfs keeps
 * elsewhere: its SHA-256 names it, and what the repository holds is a pointer.
 */
import { createHash } from 'node:crypto'
import { CID } from 'multiformats/cid'
import type { DescribedFile } from '../node/types.ts'

const COMMIT_BYTES = 20

export interface FileIdentity {
  /** 40 or 64 hex digits; without the quotes of the header. */
  etag: string
  /** What git names the blob by: the file, or its pointer. */
  oid: string
  lfs: { sha256: string, size: number, pointerSize: number } | undefined
}

export function identityOf ({ size, sha256, gitSha1 }: Pick<DescribedFile, 'size' | 'sha256' | 'gitSha1'>): FileIdentity {
  if (gitSha1 !== undefined) return { etag: gitSha1, oid: gitSha1, lfs: undefined }
  // github.com/git-lfs/git-lfs, docs/spec.md: three lines, in this order.
  const pointer = Buffer.from(`version https://git-lfs.github.com/spec/v1\noid sha256:${sha256}\nsize ${size}\n`)
  return { etag: sha256, oid: gitHash('blob', pointer), lfs: { sha256, size, pointerSize: pointer.length } }
}

/** 40 hex digits that stand where a commit's hash does: the first bytes of the digest in the model CID. */
export function commitOf (cid: string): string {
  return Buffer.from(CID.parse(cid).multihash.digest.subarray(0, COMMIT_BYTES)).toString('hex')
}

/** The name of a git object (git-scm.com/book, Git Internals, Git Objects). */
export function gitHash (type: 'blob' | 'tree', content: Uint8Array): string {
  return createHash('sha1').update(`${type} ${content.length}\0`).update(content).digest('hex')
}
