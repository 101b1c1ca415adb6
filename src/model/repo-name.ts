import { InvalidRepoNameError, REPO_NAME_PART_MAX, REVISION_BYTES_MAX } from '../base/index.ts'
import { printable } from './printable.ts'

/** A name on a Hugging Face Hub: `ORG/NAME` or `NAME`, and which revision of it. */
export interface RepoName {
  repo: string
  revision: string
}

export const DEFAULT_REVISION = 'main'
/** What git names a commit, or a blob, by. */
export const COMMIT = /^[0-9a-f]{40}$/
/** `cid/<model CID>` names a model by itself, so nothing can be linked there. */
export const CID_ORG = 'cid'

/**
 * huggingface_hub takes no others (utils/_validators.py): words of ASCII letters, digits, `_`, `-` and `.` that begin and end
 * with none of the last two, at most 96 characters, with no `--` or `..` and no `.git` at the end.
 */
const PART = /^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?$/
/** What stands behind a repo's name in the Hub's addresses, and at their beginning. */
const RESERVED_NAMES = new Set(['resolve', 'raw', 'tree', 'blob', 'revision', 'refs', 'commits', 'paths-info'])
const RESERVED_ORGS = new Set([CID_ORG, 'api', 'models', 'datasets', 'spaces', 'kernels', 'buckets', 'v2'])
/** It becomes a path in clients' caches (`refs/<revision>`), and git has no others (git-check-ref-format): no blanks or controls among them. */
const REVISION_SEGMENT = /^[\p{L}\p{N}_][\p{L}\p{M}\p{N}_.+=@-]*$/u
const LIKE_COMMIT = /^[0-9a-f]{40}$/i

/** Throws InvalidRepoNameError. */
export function checkRepo (repo: string): void {
  const bad = (why: string): InvalidRepoNameError => new InvalidRepoNameError(`${printable(repo)} ${why}; a name is ORG/NAME, such as meta/llama-3-8b`)
  const parts = repo.split('/')
  if (parts.length > 2) throw bad('has more than one /')
  for (const part of parts) {
    if (part.length > REPO_NAME_PART_MAX) throw bad(`has a part of more than ${REPO_NAME_PART_MAX} characters`)
    if (!PART.test(part)) throw bad('holds something else than letters, digits, _ - and ., or begins or ends with - or .')
  }
  if (repo.includes('--') || repo.includes('..')) throw bad('holds -- or ..')
  if (repo.endsWith('.git')) throw bad('ends with .git')
  const [first = '', last = first] = parts
  if (RESERVED_ORGS.has(first.toLowerCase())) throw bad(`is taken: ${first} has a meaning of its own`)
  if (RESERVED_NAMES.has(last.toLowerCase())) throw bad(`is taken: ${last} has a meaning of its own`)
}

/** Whether checkRepo lets it pass. */
export function isRepo (repo: string): boolean {
  try {
    checkRepo(repo)
    return true
  } catch {
    return false
  }
}

/** Throws InvalidRepoNameError. */
export function checkRevision (revision: string): void {
  const bad = (why: string): InvalidRepoNameError => new InvalidRepoNameError(`the revision ${printable(revision)} ${why}; give it a name such as main or v1.0`)
  if (Buffer.byteLength(revision) > REVISION_BYTES_MAX) throw bad(`has more than ${REVISION_BYTES_MAX} bytes`)
  if (LIKE_COMMIT.test(revision)) throw bad('looks like a commit, which follows from the model')
  if (revision.normalize('NFC') !== revision) throw bad('is not in Unicode normal form C')
  for (const segment of revision.split('/')) {
    if (!REVISION_SEGMENT.test(segment) || segment.endsWith('.lock') || segment.includes('..')) throw bad('holds something that no branch or tag may')
  }
}

/** `ORG/NAME` or `ORG/NAME@REVISION`, checked. Throws InvalidRepoNameError. */
export function parseRepoName (text: string): RepoName {
  const at = text.indexOf('@')
  const name = at < 0 ? { repo: text, revision: DEFAULT_REVISION } : { repo: text.slice(0, at), revision: text.slice(at + 1) }
  checkRepo(name.repo)
  checkRevision(name.revision)
  return name
}

export function showRepoName ({ repo, revision }: RepoName): string {
  return revision === DEFAULT_REVISION ? repo : `${repo}@${revision}`
}
