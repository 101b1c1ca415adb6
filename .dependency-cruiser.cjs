// Imports run one way, from the outside in (docs/ARCHITECTURE.md). Each room may import itself and the rooms after it.
const order = [['cli', 'loader'], ['hf'], ['api'], ['node'], ['origin'], ['replication'], ['transfer'], ['storage', 'discovery'], ['model'], ['base']]

const forbidden = []
for (const [level, rooms] of order.entries()) {
  const inward = order.slice(level + 1).flat()
  for (const room of rooms) {
    const allowed = [room, ...inward]
    forbidden.push({
      name: `${room}-imports-inward`,
      comment: `src/${room} may import only: ${allowed.join(', ')}`,
      severity: 'error',
      from: { path: `^src/${room}/` },
      to: { path: '^src/', pathNot: `^src/(${allowed.join('|')})/` }
    })
  }
}

module.exports = {
  forbidden: [
    ...forbidden,
    { name: 'no-circular', comment: 'a circle has no inside', severity: 'error', from: { path: '^src/' }, to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } } },
    { name: 'model-is-pure', comment: 'formats touch neither disk nor network', severity: 'error', from: { path: '^src/model/' }, to: { path: '^(node:)?(fs|net|http|sqlite|child_process)' } },
    { name: 'storage-knows-no-libp2p', severity: 'error', from: { path: '^src/storage/' }, to: { path: 'node_modules/(@libp2p|libp2p|@chainsafe|@multiformats)' } },
    { name: 'api-reaches-the-node-only', comment: 'no way around the node into storage or libp2p', severity: 'error', from: { path: '^src/(api|hf)/' }, to: { path: '^src/(storage|discovery|transfer|replication|origin)/|node_modules/(@libp2p|libp2p)', dependencyTypesNot: ['type-only'] } },
    { name: 'loader-starts-in-milliseconds', comment: 'nothing heavy, directly or through others', severity: 'error', from: { path: '^src/loader/' }, to: { path: 'node_modules/(@libp2p|libp2p|@chainsafe|zod|hono|@hono|pino|@ipld)', reachable: true } },
    { name: 'src-imports-no-tests', severity: 'error', from: { path: '^src/' }, to: { path: '^(test|scripts)/' } },
    { name: 'no-dev-dependencies', severity: 'error', from: { path: '^src/' }, to: { dependencyTypes: ['npm-dev'], dependencyTypesNot: ['type-only'] } }
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    parser: 'swc',
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { extensions: ['.ts', '.js', '.json'], exportsFields: ['exports'], conditionNames: ['import', 'node', 'default'] }
  }
}
