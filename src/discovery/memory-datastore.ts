import { BaseDatastore } from 'datastore-core'
import { Key, type Pair, type KeyQuery } from 'interface-datastore'
import { NotFoundError } from '@libp2p/interface'

/**
 * For nodes without a disk. libp2p's own memory datastore goes through all it has for each prefix query; this one
 * keeps entries by the folder they are in, so the question "who provides this key" looks at one folder.
 */
export class MemoryDatastore extends BaseDatastore {
  readonly #folders = new Map<string, Map<string, Uint8Array>>()

  override put (key: Key, value: Uint8Array): Key {
    const { folder, name } = split(key.toString())
    let entries = this.#folders.get(folder)
    if (entries === undefined) this.#folders.set(folder, entries = new Map())
    entries.set(name, value)
    return key
  }

  override get (key: Key): Uint8Array {
    const { folder, name } = split(key.toString())
    const value = this.#folders.get(folder)?.get(name)
    if (value === undefined) throw new NotFoundError(`no entry at ${key.toString()}`)
    return value
  }

  override has (key: Key): boolean {
    const { folder, name } = split(key.toString())
    return this.#folders.get(folder)?.has(name) ?? false
  }

  override delete (key: Key): void {
    const { folder, name } = split(key.toString())
    const entries = this.#folders.get(folder)
    if (entries?.delete(name) === true && entries.size === 0) this.#folders.delete(folder)
  }

  override * _all ({ prefix = '' }: { prefix?: string }): Generator<Pair> {
    // Keys of provider records have one length, so none begins with another.
    const exact = prefix.startsWith('/dht/provider/') ? this.#folders.get(prefix) : undefined
    const folders = exact === undefined ? this.#folders : [[prefix, exact] as const]
    for (const [folder, entries] of folders) {
      for (const [name, value] of entries) {
        const path = `${folder}/${name}`
        if (path.startsWith(prefix)) yield { key: new Key(path, false), value }
      }
    }
  }

  override * _allKeys (query: KeyQuery): Generator<Key> {
    for (const { key } of this._all(query)) yield key
  }
}

function split (path: string): { folder: string, name: string } {
  const at = path.lastIndexOf('/')
  return { folder: path.slice(0, at), name: path.slice(at + 1) }
}
