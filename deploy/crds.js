// Validates objects of operators against the schemas of @kubernetes-models: a JSON list of objects on standard input, and on
// standard output how many were looked at, and what is wrong with them.
const path = require('path');
const modules = process.argv[2];
const packages = { 'monitoring.coreos.com': 'prometheus-operator', 'cert-manager.io': 'cert-manager', 'keda.sh': 'keda' };
const found = [];
let lookedAt = 0;
for (const object of JSON.parse(require('fs').readFileSync(0, 'utf8'))) {
  const [group, version] = object.apiVersion.split('/');
  if (!packages[group]) continue;
  const name = `${object.kind}/${object.metadata.name}`;
  lookedAt += 1;
  let model;
  try {
    model = require(path.join(modules, '@kubernetes-models', packages[group], group, version, object.kind));
  } catch (error) {
    found.push(`${name}: no schema: ${error.message}`);
    continue;
  }
  try {
    new model[object.kind](object).validate();
  } catch (error) {
    found.push(`${name}: ${error.message}`);
  }
}
console.log(JSON.stringify([lookedAt, found]));
