/**
 * What travels between the daemon and its clients beyond the node's own types. Types only: the loader imports this
 * and must start in milliseconds.
 */
import type { ErrorJson } from '../base/errors.ts'
import type { AddProgress, AddResult, LoadProgress, LoadResult, ModelDetails, OpenFile } from '../node/types.ts'
import type { Tensor } from '../model/types.ts'
import type { VerifyProgress, VerifyResult } from '../storage/store.ts'

/** The last line of a stream that failed. */
export interface ErrorMessage { type: 'error', error: ErrorJson }

export type AddMessage = { type: 'progress', progress: AddProgress } | { type: 'done', result: AddResult }

/**
 * A load tells its files once, as soon as they are known, then how it goes, then its end. `path` is the directory of the
 * complete files; it fills as files complete. Files in place and nodes in memory have none.
 */
export type OpenMessage =
  { type: 'files', files: OpenFile[], path?: string } |
  { type: 'progress', progress: LoadProgress } |
  { type: 'done', result: LoadResult }

export type VerifyMessage = { type: 'progress', progress: VerifyProgress } | { type: 'done', result: VerifyResult }

/** A model's details; the tensors themselves only when they were asked for, their number always. */
export interface ShownModel extends Omit<ModelDetails, 'fileList'> {
  fileList: Array<Omit<ModelDetails['fileList'][number], 'tensors'> & { tensorCount: number, tensors?: Tensor[] }>
}

export interface PinResult { cid: string, pinned: boolean }
export interface WaitRange { path: string, offset: number, length: number }
export interface Readiness { status: 'ready' | 'stopping' }
