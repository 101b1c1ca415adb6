import assert from 'node:assert/strict'
import { access, readFile } from 'node:fs/promises'
import { DockerfileParser } from 'dockerfile-ast'
import { validate as lint } from 'dockerfile-utils'
import { DaemonSet } from 'kubernetes-models/apps/v1/DaemonSet'
import { ConfigMap } from 'kubernetes-models/v1/ConfigMap'
import stripJsonComments from 'strip-json-comments'
import { parseAllDocuments } from 'yaml'
import { environmentLayer, resolveConfig } from '../../../src/cli/config.ts'
import { createProgram } from '../../../src/cli/program.ts'
import { defaultSettings } from '../../../src/node/settings.ts'

const root = new URL('../../../', import.meta.url)
const read = async (path: string): Promise<string> => await readFile(new URL(path, root), 'utf8')

/** The port of libp2p, and the one after it, of lanes. */
const PORTS = [4108, 4109]
const METRICS_PORT = 4110

/**
 * What of `data` a validator made from a schema never looked at: keys that the schema does not know. The Kubernetes API
 * drops such keys, or refuses them, and its schemas allow them.
 */
function unknownKeys (data: unknown, validate: (data: unknown) => void): string[] {
  const seen = new Set<string>()
  const all: string[] = []
  const watch = (value: unknown, path: string): unknown => {
    if (typeof value !== 'object' || value === null) return value
    const children = new Map(Object.entries(value).map(([key, child]) => {
      all.push(`${path}/${key}`)
      return [key, watch(child, `${path}/${key}`)] as const
    }))
    return new Proxy(value, {
      get: (target, key) => {
        if (typeof key !== 'string' || !children.has(key)) return Reflect.get(target, key) as unknown
        seen.add(`${path}/${key}`)
        return children.get(key)
      }
    })
  }
  validate(watch(data, ''))
  return all.filter(path => !seen.has(path))
}

function validateAs (Kind: new (data: never) => { validate: () => void }): (data: unknown) => void {
  // The class copies what it is given; its validator is wanted on the thing itself.
  return data => {
    const made = new Kind({} as never)
    const asked = new Proxy(made, { get: (target, key, receiver) => typeof key === 'string' && key in (data as object) ? (data as Record<string, unknown>)[key] : Reflect.get(target, key, receiver) as unknown, ownKeys: () => Reflect.ownKeys(data as object), getOwnPropertyDescriptor: (_, key) => Reflect.getOwnPropertyDescriptor(data as object, key) })
    asked.validate()
  }
}

/** A command line of the image, taken by the program without running it. */
function assertCommandLine (args: string[]): void {
  const program = createProgram()
  for (const command of program.commands) command.action(() => undefined)
  program.parse(args, { from: 'user' })
}

describe('config: the image', () => {
  it('has a Dockerfile without a fault, small and for no root', async () => {
    const text = await read('config/Dockerfile')
    assert.deepEqual(lint(text), [])
    assert.ok(lint(text.replace('ENTRYPOINT', 'ENTRYPOINTS')).length > 0)
    const file = DockerfileParser.parse(text)
    const instructions = file.getInstructions().map(instruction => ({ name: instruction.getKeyword(), text: instruction.getArgumentsContent() ?? '' }))
    const stages = instructions.filter(({ name }) => name === 'FROM')
    assert.equal(stages.length, 2)
    for (const { text } of stages) assert.match(text, /^node:26(\.\d+)*-\w+-slim( AS build)?$/)
    const last = instructions.slice(instructions.lastIndexOf(stages[1] ?? { name: '', text: '' }))
    const of = (name: string): string[] => last.filter(instruction => instruction.name === name).map(({ text }) => text)
    assert.match(of('USER').at(-1) ?? '', /^[1-9]\d+:[1-9]\d+$/)
    assert.deepEqual(of('EXPOSE').flatMap(text => text.split(/\s+/)), PORTS.map(port => `${port}/tcp`))
    assert.deepEqual(defaultSettings.listen, [`/ip4/0.0.0.0/tcp/${PORTS[0]}`])
    const entry = JSON.parse(of('ENTRYPOINT')[0] ?? '') as string[]
    assert.deepEqual(entry, ['shoal'])
    assertCommandLine(JSON.parse(of('CMD')[0] ?? '') as string[])
    const [, health = ''] = /CMD (\[.*\])$/.exec(of('HEALTHCHECK')[0] ?? '') ?? []
    const [program, ...args] = JSON.parse(health) as string[]
    assert.equal(program, 'shoal')
    assertCommandLine(args)
  })

  it('copies what is there and not ignored', async () => {
    const copied = [...(await read('config/Dockerfile')).matchAll(/^COPY (?!--from)(.+)$/gm)].flatMap(([, text = '']) => text.split(/\s+/).slice(0, -1))
    const kept = (await read('config/Dockerfile.dockerignore')).split('\n').filter(line => line.startsWith('!')).map(line => line.slice(1))
    assert.ok(copied.length > 5)
    for (const path of copied) {
      await access(new URL(path, root))
      assert.ok(kept.some(keep => path === keep || path.startsWith(`${keep}/`)), `${path} is ignored`)
    }
  })
})

describe('config: the DaemonSet', () => {
  interface Container { name: string, image: string, args?: string[], command?: string[], env?: Array<{ name: string, value?: string }>, ports?: Array<{ name: string, containerPort: number }>, volumeMounts: Array<{ name: string, mountPath: string }>, securityContext: Record<string, unknown>, resources: object, startupProbe?: Probe, readinessProbe?: Probe, livenessProbe?: Probe }
  interface Probe { httpGet: { path: string, port: string } }
  interface Set { kind: string, spec: { selector: { matchLabels: object }, template: { metadata: { labels: object, annotations: Record<string, string> }, spec: { hostNetwork: boolean, tolerations: Array<{ key: string }>, securityContext: Record<string, unknown>, initContainers: Container[], containers: Container[], volumes: Array<{ name: string, hostPath?: { path: string } }> } } } }
  let map: { data: Record<string, string> }
  let set: Set

  before(async () => {
    const documents = parseAllDocuments(await read('config/kubernetes/daemonset.yaml'), { uniqueKeys: true })
    for (const document of documents) assert.deepEqual([...document.errors, ...document.warnings], [])
    assert.equal(documents.length, 2)
    map = documents[0]?.toJS() as typeof map
    set = documents[1]?.toJS() as Set
  })

  it('is what the schemas of Kubernetes say, with no key that they do not know', () => {
    new ConfigMap(map).validate()
    new DaemonSet(set as never).validate()
    assert.deepEqual(unknownKeys(map, validateAs(ConfigMap)), [])
    assert.deepEqual(unknownKeys(set, validateAs(DaemonSet)), [])
    const misspelt = structuredClone(set) as Set & { spec: { template: { spec: { hostNetwrok?: boolean } } } }
    misspelt.spec.template.spec.hostNetwrok = true
    assert.deepEqual(unknownKeys(misspelt, validateAs(DaemonSet)), ['/spec/template/spec/hostNetwrok'])
    assert.throws(() => { new DaemonSet({ ...set, spec: { template: set.spec.template } } as never).validate() }, /selector/)
  })

  it('fits together: labels, volumes, ports, users, and what the program takes', () => {
    const { spec, metadata } = set.spec.template
    assert.deepEqual(set.spec.selector.matchLabels, metadata.labels)
    const volumes = new Set(spec.volumes.map(({ name }) => name))
    const containers = [...spec.initContainers, ...spec.containers]
    for (const { volumeMounts, securityContext, resources } of containers) {
      for (const { name } of volumeMounts) assert.ok(volumes.has(name), name)
      assert.equal(securityContext.allowPrivilegeEscalation, false)
      assert.ok('requests' in resources && 'limits' in resources)
    }
    assert.equal(new Set(containers.map(({ image }) => image)).size, 1)
    assert.equal(spec.securityContext.runAsNonRoot, true)
    const [node] = spec.containers
    assert.ok(node !== undefined)
    assert.deepEqual(node.ports?.map(({ containerPort }) => containerPort), [...PORTS, METRICS_PORT])
    assertCommandLine(node.args ?? [])
    const metrics = node.ports?.at(-1)
    assert.deepEqual([node.startupProbe, node.readinessProbe, node.livenessProbe].map(probe => probe?.httpGet), ['/readyz', '/readyz', '/livez'].map(path => ({ path, port: metrics?.name })))
    assert.deepEqual(metadata.annotations, { 'prometheus.io/scrape': 'true', 'prometheus.io/port': String(METRICS_PORT), 'prometheus.io/path': '/metrics' })
    const mounted = node.volumeMounts.map(({ mountPath }) => mountPath)
    assert.ok(mounted.some(path => (node.args ?? []).some(arg => arg.startsWith(`${path}/`))))
    assert.ok(spec.volumes.some(({ hostPath }) => hostPath !== undefined && mounted.includes('/var/lib/shoal')))
    assert.ok(spec.tolerations.some(({ key }) => key === 'nvidia.com/gpu'))
    const variables = Object.fromEntries((node.env ?? []).map(({ name, value }) => [name, value]))
    assert.deepEqual(resolveConfig([environmentLayer(variables)]).node.labels, { host: '$(NODE_NAME)' })
    assert.ok('SHOAL_JOIN' in variables)
    const values = new Map<string, unknown>()
    for (const [section, keys] of Object.entries(JSON.parse(stripJsonComments(map.data['config.jsonc'] ?? '')) as Record<string, Record<string, unknown>>)) for (const [key, value] of Object.entries(keys)) values.set(`${section}.${key}`, value)
    const config = resolveConfig([{ source: 'the ConfigMap', values }])
    assert.ok((config.node.storage?.quota ?? 0) > 0)
    assert.deepEqual(config.daemon.metrics, { listen: { host: '0.0.0.0', port: METRICS_PORT }, allowRemote: true, hosts: [] })
  })
})
