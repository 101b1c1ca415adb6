import { PAGE_BYTES } from '../base/index.ts'

/** Kept at once for one file. A load that writes run after run needs one or two for each run. */
const EDGES_MAX = 128

/** Bytes of a page that a block shares with a neighbour. `offset` in the file. */
export interface Edge { readonly offset: number, readonly bytes: Uint8Array }

/**
 * The ragged edges of one file's blocks whose neighbours have not come yet, since it was last synced. Blocks mostly come in runs:
 * the neighbour that completes the page takes the edge along in its own direct write, and a block costs one write instead of
 * three. What no neighbour has come for is written when the file is synced. Knows nothing of how anything is written.
 */
export class Edges {
  readonly #edges = new Map<number, Edge>()
  /** Writes under way of edges of this file: with what took them along, or by themselves. */
  readonly #carriers = new Set<Promise<unknown>>()

  get count (): number { return this.#edges.size }

  /** Keeps a copy; false: there are too many. */
  keep (offset: number, bytes: Uint8Array): boolean {
    if (this.#edges.size >= EDGES_MAX) return false
    this.#edges.set(offset, { offset, bytes: bytes.slice() })
    return true
  }

  /** What is kept of exactly these bytes, less than a page of them. */
  take (offset: number, end: number): Edge | undefined {
    const edge = this.#edges.get(offset)
    if (edge === undefined || edge.bytes.length !== end - offset || edge.bytes.length >= PAGE_BYTES) return undefined
    this.#edges.delete(offset)
    return edge
  }

  takeAll (): Edge[] {
    const edges = [...this.#edges.values()]
    this.#edges.clear()
    return edges
  }

  /** Until `writing` is over the edges it took along are not on disk; if it fails they are here again. */
  carry (writing: Promise<unknown>, taken: readonly Edge[]): void {
    this.#carriers.add(writing)
    writing.then(() => { this.#carriers.delete(writing) }, () => {
      for (const edge of taken) this.#edges.set(edge.offset, edge)
      this.#carriers.delete(writing)
    })
  }

  /** The writes under way of edges that were here. */
  carriers (): Array<Promise<unknown>> { return [...this.#carriers] }
}
